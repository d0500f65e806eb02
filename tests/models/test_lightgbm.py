from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import pytest

from mainspring.errors import RegistryError
from mainspring.models.adapters.lightgbm import MODEL, Booster, LightGBMLearner, _thresholds
from mainspring.models.protocol import Rows

NAMES = ["a", "b", "c", "kind"]


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    x[:, 3] = rng.integers(0, 6, n)
    x[rng.random(x.shape) < 0.1] = np.nan
    y = 3 * np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) ** 2 + 2 * (x[:, 3] == 2) + rng.normal(0, 0.1, n)
    return x, y


def fit(seed: int = 0) -> Booster:
    x, y = rows(4_000, 1)
    learner = LightGBMLearner(trees=40, leaves=15, learning_rate=0.1, min_leaf_rows=10, feature_fraction=0.8)
    return learner.fit(Rows(x, y), names=NAMES, categorical=["kind"], seed=seed, threads=1)


def text(booster: Booster) -> str:
    return booster.to_artifacts()[MODEL].decode()


def load(model: str, names: list[str]) -> Booster:
    return LightGBMLearner().load({MODEL: model.encode()}, names)


@pytest.fixture(scope="module")
def booster() -> Booster:
    return fit()


def test_a_single_row_is_bit_identical_on_every_kind_of_row(booster: Booster) -> None:
    assert booster.fast
    x, _ = rows(9_000, 2)
    x[:1_000, 3] = 99.0
    x[1_000] = np.nan
    x[1_001] = np.inf
    splits = [one for tree in booster.ensemble.dump()["tree_info"] for one in _thresholds(tree["tree_structure"])]
    on = x[rng_rows(len(splits))].copy()
    for row, (column, value) in zip(on, splits, strict=True):
        row[column] = value
    x = np.vstack([x, on])
    assert [booster.predict_row(np.ascontiguousarray(row))[0] for row in x] == booster.predict(x).tolist()


def rng_rows(n: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(3).integers(0, 9_000, n)


def test_the_same_fit_gives_the_same_bits_and_another_seed_does_not(booster: Booster) -> None:
    assert text(fit()) == text(booster)
    assert text(fit(seed=1)) != text(booster)


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(400), 10)])
def test_a_tree_learns_from_a_share_of_the_rows_or_of_whole_queries(groups: np.ndarray | None) -> None:  # type: ignore[type-arg]
    x, y = rows(4_000, 1)
    learner = LightGBMLearner("regression" if groups is None else "lambdarank", trees=3, row_fraction=0.5)
    label = y if groups is None else np.digitize(y, [0.0, 3.0]).astype(float)
    fitted = learner.fit(Rows(x, label, groups=groups), names=NAMES, threads=1)
    drawn = [tree["tree_structure"]["internal_count"] for tree in fitted.ensemble.dump()["tree_info"]]
    assert all(1_800 < count < 2_200 for count in drawn)
    assert groups is None or all(count % 10 == 0 for count in drawn)


def test_contributions_add_up_to_the_prediction(booster: Booster) -> None:
    x, _ = rows(200, 4)
    contributions = booster.contributions(x)
    assert contributions.shape == (200, 5)
    assert contributions.sum(axis=1) == pytest.approx(booster.predict(x), abs=1e-9)


def test_text_comes_back_as_the_same_model(booster: Booster) -> None:
    x, _ = rows(500, 5)
    again = load(text(booster), NAMES)
    assert again.predict(x).tolist() == booster.predict(x).tolist()
    assert again.importance().keys() == dict.fromkeys(NAMES).keys()


def test_truncated_foreign_and_ill_fitting_texts_are_refused(booster: Booster) -> None:
    whole = text(booster)
    for wrong in (whole[: len(whole) // 2], "hello", "", whole.replace("end of trees", "")):
        with pytest.raises(RegistryError, match="not a whole LightGBM model"):
            load(wrong, NAMES)
    with pytest.raises(RegistryError, match="4 features, 3 are declared"):
        load(whole, NAMES[:3])


def test_rare_rows_in_the_tail_of_a_column_are_told_apart() -> None:
    """Of 60,000 rows 60 lie above a limit: bins of as many rows each do not part them where there are few."""
    x = np.random.default_rng(0).exponential(10.0, (60_000, 1))
    limit = np.sort(x[:, 0])[-60]
    rows = Rows(x, (x[:, 0] >= limit).astype(float))
    found = {}
    for bins in (127, 1_023):
        model = LightGBMLearner(objective="binary", trees=20, learning_rate=0.3, bins=bins).fit(rows, names=["amount"], threads=1)
        found[bins] = float(np.sort(model.predict(x))[-60:].mean())
    assert found[1_023] > 3 * found[127]


@pytest.mark.parametrize("settings", [{}, {"objective": "binary"}, {"objective": "multiclass", "classes": 3}], ids=str)
def test_the_library_alone_answers_as_the_package(settings: dict[str, Any]) -> None:
    import lightgbm

    x, y = rows(500, 0)
    labels = y if not settings else (np.argsort(np.argsort(y)) * settings.get("classes", 2) // len(y)).astype(np.float64)
    fitted = LightGBMLearner(trees=20, **settings).fit(Rows(x, labels), names=["a", "b", "c", "d"], threads=1)
    package = lightgbm.Booster(model_str=fitted.ensemble.text)
    assert np.array_equal(fitted.predict(x), package.predict(x, num_threads=1))
    assert np.array_equal(fitted.contributions(x).reshape(500, -1), package.predict(x, pred_contrib=True, num_threads=1))
    assert list(fitted.importance().values()) == package.feature_importance("gain").tolist()
    assert fitted.ensemble.dump()["tree_info"] == package.dump_model()["tree_info"]


def test_answering_does_not_import_the_package(booster: Booster) -> None:
    code = """
import sys
from pathlib import Path
from mainspring.models.adapters.lightgbm import LightGBMLearner
model = LightGBMLearner().load({"model.txt": Path(sys.argv[1]).read_bytes()}, ["a", "b", "c", "d"])
print(model.fast, sorted({"lightgbm", "sklearn", "pandas", "scipy"} & set(sys.modules)))
"""
    with tempfile.NamedTemporaryFile() as file:
        file.write(booster.to_artifacts()["model.txt"])
        file.flush()
        done = subprocess.run([sys.executable, "-c", code, file.name], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"
