"""One Python file that answers with NumPy alone: to the bit, on thresholds too, and refused by name where it cannot be."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_models import FITS, matrix

import mainspring as ms
from delivery import build, system
from mainspring.edge.document import tables
from mainspring.edge.exporting import embed, write
from mainspring.edge.python_file import tolerance_of
from mainspring.edge.runtime import Line, Trees
from mainspring.edge.sources import sources
from mainspring.errors import ExportError
from mainspring.model_registry.registry import Registry
from mainspring.models.adapters.ensembles import ensemble_of
from mainspring.models.parity import Probes, Tolerance, compared
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace

OF_ONE_NUMBER = [name for name in FITS if name.startswith(("lightgbm", "xgboost", "linear")) and "multiclass" not in name]
SCALE = 2.0
BANDS = np.array([1.0, 2.5])


@pytest.mark.parametrize("name", OF_ONE_NUMBER)
def test_tables_answer_to_the_bit_on_thresholds_beside_them_and_on_missing_values(name: str) -> None:
    predictor, x = FITS[name](), matrix(400, 7)
    body = json.loads(json.dumps(tables(predictor)))
    found = {"trees": Trees, "line": Line}[body["form"]](body)
    ensemble = ensemble_of(predictor)
    probes = Probes(categories={2: 4, 3: 150}) if ensemble is None else ensemble.probes()
    parity = compared(predictor.predict, found.predict, x, probes)
    assert parity.within(Tolerance(tolerance_of(body))), parity.lines()
    alone = np.concatenate([found.predict(x[row : row + 1]) for row in range(50)])
    assert np.array_equal(alone, found.predict(x[:50]))
    if name != "xgboost binary":
        assert max(part.absolute for part in parity.parts.values()) == 0.0


def test_nets_forests_and_several_classes_are_refused_by_name() -> None:
    for name, kind in (("mlp", "NetPredictor"), ("forest", "Estimator"), ("lightgbm multiclass", "Booster")):
        with pytest.raises(ExportError, match=f"kind '{kind}' has no form for NumPy alone"):
            tables(FITS[name]())


def _helper(x: Any) -> Any:
    return np.searchsorted(BANDS, x) * SCALE


@ms.feature
def banded(km: Any) -> Any:
    """Not in the file."""
    return _helper(km)


@ms.feature
def parsed(km: Any) -> Any:
    return ast.literal_eval("1") * km


@ms.feature
def evaluated(km: Any) -> Any:
    return eval("km")


@ms.feature
def imported(km: Any) -> Any:
    import math

    return km * math.pi


def test_functions_bring_helpers_and_constants_of_their_module() -> None:
    space: dict[str, Any] = {"np": np}
    text = sources([banded])
    exec(text, space)
    assert space["_f_banded"](np.array([0.5, 2.0, 3.0])).tolist() == [0.0, 2.0, 4.0]
    assert "Not in the file" not in text
    assert "Any" not in text


def test_functions_that_cannot_travel_are_refused_with_what_they_use() -> None:
    def closed(factor: float) -> Any:
        def inside(km: Any) -> Any:
            return km * factor

        return ms.feature(inside)

    wrong = {"'ast'": parsed, "'eval'": evaluated, "import math": imported, "closure over factor": closed(2.0)}
    for what, function in wrong.items():
        with pytest.raises(ExportError, match=what) as raised:
            sources([function])
        assert f"--given {function.name}" in str(raised.value)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("edge") / "space")


@pytest.fixture(scope="module")
def file(space: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    registry = Registry(space.registry)
    done = embed(system, registry, Tables(space.tables), registry.resolve("delivery", "champion"), "python")
    registry.close()
    assert (done.held.difference, done.entry) == (0.0, "delivery.py")
    assert done.held.rows > 1_000
    assert set(done.files) == {"delivery.py", "delivery.release.json"}
    assert done.bytes == sum(map(len, done.files.values()))
    folder = tmp_path_factory.mktemp("exported")
    write(folder, done.files)
    return folder / done.entry


def ask(file: Path, *asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers of the file in a process of its own, in which this package cannot be imported."""
    guard = f"import sys; sys.modules['mainspring'] = None; import runpy; runpy.run_path({str(file)!r}, run_name='__main__')"
    lines = "\n".join(map(json.dumps, asked))
    done = subprocess.run([sys.executable, "-I", "-c", guard], input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


GOOD: dict[str, Any] = {"drive": "x", "sent_at": "2025-02-10T12:00:00Z", "depot": "north", "km": 12.5}
GIVEN = {"at_depot__minutes_mean_7d": 41.0, "at_depot__count_1d": 30, "place__size_last": 1.0}


def test_the_file_answers_where_this_package_is_not(file: Path, space: Workspace) -> None:
    whole, without, null = ask(
        file, {"request": GOOD, "given": GIVEN}, {"request": GOOD}, {"request": {**GOOD, "km": None}, "given": GIVEN}
    )
    assert whole["interval"]["low"] < whole["minutes"] < whole["interval"]["high"]
    assert (whole["answered_by"], whole["version"]) == ("model", "model:delivery:1")
    assert "flags" not in whole
    assert without["flags"] == dict.fromkeys(GIVEN, "unavailable")
    assert null["minutes"] != whole["minutes"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        *(({"kms": 1}, "kms"), ({"km": "12"}, "km"), ({"km": True}, "km"), ({"km": -1}, "km"), ({"depot": None}, "depot")),
        *(({"sent_at": "yesterday"}, "sent_at"), ({"sent_at": "1999-01-01T00:00:00Z"}, "sent_at"), ({"drive": ""}, "drive")),
    ],
)
def test_what_breaks_the_contract_is_refused_with_the_field(file: Path, wrong: dict[str, Any], field: str) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("exported_delivery", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(module.RequestError) as raised:
        module.answer({**GOOD, **wrong}, GIVEN)
    assert raised.value.field == field
    with pytest.raises(module.RequestError, match="not a feature that is given"):
        module.answer(GOOD, {"speed": 1.0})


def test_a_sample_is_what_the_service_says(file: Path, space: Workspace) -> None:
    from mainspring.gateway.backend import opened
    from mainspring.serving.features import FeatureReader

    with opened(space, stream=True) as backend:
        row = {**GOOD, "sent_at": 1_739_188_800_000_000}
        answer = backend.answer(row, request_id="r", explain=False)
        reader = FeatureReader(system, backend._service._features._online)
        values = dict(zip([one.name for one in system.features], reader.read(row).values, strict=True))
    given = {name: values[name] for name in GIVEN}
    (told,) = ask(file, {"request": GOOD, "given": given})
    assert told["minutes"] == answer.prediction
    assert answer.interval is not None
    assert (told["interval"]["low"], told["interval"]["high"]) == (answer.interval.low, answer.interval.high)
