from pathlib import Path

import pytest

from mainspring.errors import RegistryError
from mainspring.model_registry import ModelManifest, Registry
from mainspring.model_registry.manifest import dependencies


def test_a_manifest_comes_back_typed_and_an_older_or_newer_one_loads(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    whole = ModelManifest(features={"a": "1"}, seed=7, seconds=1.5, latency={"p50": 9.0}, licence="Apache-2.0", environment=dependencies())
    assert ModelManifest.of(registry.register("model", "eta", whole.to_dict(), at=1)) == whole
    older = {"system": "h", "features": {"a": "1"}, "metrics": {"mae": 2.0}, "seconds": 3, "bytes": 10, "note": "", "code": "c"}
    read = ModelManifest.of(registry.register("model", "eta", older, at=2))
    assert (read.system, read.seconds, read.metrics, read.seed, read.licence) == ("h", 3.0, {"mae": 2.0}, None, "")
    assert ModelManifest.of(registry.register("model", "eta", {"colour": "red"}, at=3)) == ModelManifest()
    with pytest.raises(RegistryError, match=r"model:eta:4.*none of a model .*features"):
        ModelManifest.of(registry.register("model", "eta", {"features": ["a"]}, at=4))
    registry.close()


def test_the_environment_names_what_is_installed() -> None:
    found = dependencies()
    assert {"python", "mainspring", "numpy", "pyarrow", "lightgbm"} <= set(found)


def test_a_difference_names_all_that_differs_and_nothing_else(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for rows, until in ((100, 5), (150, 9)):
        registry.register("dataset", "eta", {"rows": rows, "since": 0, "until": until, "split": {"gap": 1}}, at=1)
    first = ModelManifest(
        features={"a": "1", "b": "1", "c": "1"}, dataset="dataset:eta:1", parameters={"trees": 100, "leaves": 31}, seed=1, bytes=10,
        metrics={"mae": 2.0, "rows": 7, "slices": {"north": 1.0}}, code="one", environment={"numpy": "2.0", "lightgbm": "4.5"},
    )  # fmt: skip
    second = ModelManifest(
        features={"a": "1", "b": "2", "d": "1"}, dataset="dataset:eta:2", parameters={"trees": 200, "leaves": 31}, seed=1, bytes=30,
        metrics={"mae": 1.5, "rows": 7, "slices": {"north": None}}, code="two", environment={"numpy": "2.1", "lightgbm": "4.5"},
    )  # fmt: skip
    a, b = (registry.register("model", "eta", one.to_dict(), at=2) for one in (first, second))
    found = registry.difference(a, b)
    assert (found.first, found.second) == ("model:eta:1", "model:eta:2")
    assert found.features == {"b": "changed", "c": "removed", "d": "added"}
    assert found.parameters == {"trees": (100, 200)}
    assert found.metrics == {"mae": (2.0, 1.5, -0.5), "slices.north": (1.0, None, None)}
    assert found.dataset == {"id": ("dataset:eta:1", "dataset:eta:2"), "rows": (100, 150), "until": (5, 9)}
    assert found.environment == {"numpy": ("2.0", "2.1")}
    assert found.other == {"code": ("one", "two"), "bytes": (10, 30)}
    same = registry.difference(a, a)
    assert not any((same.features, same.schema, same.parameters, same.metrics, same.dataset, same.environment, same.other))
    registry.close()
