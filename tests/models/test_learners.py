"""Every kind of learner holds to one contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mainspring.errors import DeclarationError, RegistryError
from mainspring.models.learners import learner, load_predictor
from mainspring.models.protocol import Predictor, Rows

NAMES = ["a", "b", "kind"]
TREES = {"trees": 60, "learning_rate": 0.1}
NET: dict[str, Any] = {
    "shape": "mlp", "objective": "regression", "hidden": [16], "crosses": [], "level": 0.5, "classes": 1, "dropout": 0.0, "epochs": 8,
    "batch": 64, "learning_rate": 0.01, "weight_decay": 0.01, "patience": 5,
}  # fmt: skip
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("lightgbm", "regression", TREES),
    ("lightgbm", "binary", {**TREES, "objective": "binary"}),
    ("lightgbm", "multiclass", {**TREES, "objective": "multiclass", "classes": 3}),
    ("xgboost", "regression", TREES),
    ("xgboost", "binary", {**TREES, "objective": "binary:logistic"}),
    ("xgboost", "multiclass", {**TREES, "objective": "multi:softprob", "classes": 3}),
    ("linear", "regression", {}),
    ("linear", "binary", {"task": "binary"}),
    ("linear", "multiclass", {"task": "multiclass"}),
    ("net", "regression", NET),
    ("net", "binary", {**NET, "objective": "binary", "shape": "wide_and_deep"}),
    ("net", "multiclass", {**NET, "objective": "multiclass", "classes": 3}),
    ("sklearn", "regression", {"estimator": "sklearn.ensemble.HistGradientBoostingRegressor", "settings": {"max_iter": 30}}),
    ("sklearn", "binary", {"estimator": "sklearn.ensemble.ExtraTreesClassifier", "task": "binary", "settings": {"n_estimators": 20}}),
    ("sklearn", "multiclass", {"estimator": "sklearn.tree.DecisionTreeClassifier", "task": "multiclass", "settings": {"max_depth": 6}}),
]


def made(task: str, n: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=n), rng.normal(size=n), rng.integers(0, 4, n)])
    x[rng.random(x.shape) < 0.05] = np.nan
    signal = 1.5 * np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) + 1.5 * (x[:, 2] == 2) + rng.normal(0, 0.3, n)
    levels = {"regression": signal, "binary": signal > 0.3, "multiclass": np.digitize(signal, [-0.5, 1.0])}
    return Rows(x, levels[task].astype(float))


def fitted(kind: str, task: str, settings: dict[str, Any], seed: int = 0) -> Predictor:
    return learner(kind, settings).fit(made(task, 3_000, 1), names=NAMES, categorical=["kind"], held_out=None, seed=seed, threads=1)


@pytest.mark.parametrize(("kind", "task", "settings"), KINDS, ids=[f"{kind}-{task}" for kind, task, _ in KINDS])
def test_a_learner_learns_explains_and_comes_back(kind: str, task: str, settings: dict[str, Any]) -> None:
    model, rows = fitted(kind, task, settings), made(task, 500, 2)
    predicted = model.predict(rows.x)
    assert predicted.dtype == np.float64
    assert predicted.shape == ((500, 3) if task == "multiclass" else (500,))
    assert model.outputs == (3 if task == "multiclass" else 1)
    if task == "regression":
        assert np.mean((predicted - rows.y) ** 2) < 0.35 * rows.y.var()
    else:
        guess = predicted.argmax(axis=1) if task == "multiclass" else predicted > 0.5
        assert np.mean(guess == rows.y) > 0.78
        assert ((predicted >= 0) & (predicted <= 1)).all()
    for row in range(20):
        assert model.predict_row(np.ascontiguousarray(rows.x[row])).tolist() == np.atleast_1d(predicted[row]).tolist()
    again = load_predictor(kind, settings, model.to_artifacts(), NAMES)
    assert again.predict(rows.x).tolist() == predicted.tolist()
    assert fitted(kind, task, settings).to_artifacts().keys() == model.to_artifacts().keys()
    assert fitted(kind, task, settings).predict(rows.x).tolist() == predicted.tolist()


@pytest.mark.parametrize(("kind", "task", "settings"), KINDS, ids=[f"{kind}-{task}" for kind, task, _ in KINDS])
def test_contributions_add_up(kind: str, task: str, settings: dict[str, Any]) -> None:
    model, rows = fitted(kind, task, settings), made(task, 40, 3)
    parts = model.contributions(rows.x)
    assert parts.shape == ((40, 3, 4) if task == "multiclass" else (40, 4))
    scores = parts.sum(axis=-1)
    if kind != "sklearn" and task != "regression":
        raised = np.exp(scores)
        scores = raised / (1 + raised if task == "binary" else raised.sum(axis=1, keepdims=True))
    assert scores == pytest.approx(model.predict(rows.x), abs=1e-4 if kind == "net" else 2e-6)
    importance = model.importance()
    assert not importance or (importance.keys() == set(NAMES) and importance["a"] > 0)


@pytest.mark.parametrize(("kind", "settings"), [(kind, settings) for kind, task, settings in KINDS if task == "binary"])
def test_damaged_foreign_and_ill_fitting_artifacts_are_refused(kind: str, settings: dict[str, Any]) -> None:
    artifacts = fitted(kind, "binary", settings).to_artifacts()
    name = next(iter(artifacts))
    for wrong in (artifacts[name][: len(artifacts[name]) // 2], b"hello", b""):
        with pytest.raises(RegistryError):
            load_predictor(kind, settings, {**artifacts, name: wrong}, NAMES)
    with pytest.raises(RegistryError, match="belongs to another system"):
        load_predictor(kind, settings, artifacts, NAMES[:2])
    with pytest.raises(RegistryError, match=r"'lightgbn' is not known. Did you mean 'lightgbm'"):
        load_predictor("lightgbn", settings, artifacts, NAMES)


def test_weights_and_early_stopping_are_heard() -> None:
    rows, rng = made("binary", 3_000, 4), np.random.default_rng(5)
    heavy = Rows(rows.x, rows.y, np.where(rows.y > 0, 20.0, 1.0))
    noise = Rows(rows.x, rng.permutation(rows.y))
    for kind, settings in (("lightgbm", {"objective": "binary"}), ("xgboost", {"objective": "binary:logistic"})):
        plain = learner(kind, settings)
        shared: dict[str, Any] = {"names": NAMES, "categorical": [], "seed": 0, "threads": 1}
        means = [plain.fit(one, held_out=None, **shared).predict(rows.x).mean() for one in (heavy, rows)]
        assert means[0] > means[1]
        stopped = learner(kind, {**settings, "patience": 5}).fit(noise, held_out=made("binary", 1_000, 6), **shared)
        whole = plain.fit(noise, held_out=None, **shared)
        assert sum(map(len, stopped.to_artifacts().values())) < 0.5 * sum(map(len, whole.to_artifacts().values()))


def test_trees_go_on_from_trees() -> None:
    rows, shared = made("regression", 3_000, 7), {"names": NAMES, "categorical": [], "seed": 0, "threads": 1}
    for kind in ("lightgbm", "xgboost"):
        short: Any = learner(kind, {"trees": 10})
        first = short.fit(rows, held_out=None, **shared)
        longer = short.fit(rows, held_out=None, start=first, **shared)
        errors = [np.mean((model.predict(rows.x) - rows.y) ** 2) for model in (first, longer)]
        assert errors[1] < 0.8 * errors[0]


def test_an_estimator_that_is_not_there_is_named() -> None:
    for settings in (
        {"estimator": "sklearn.ensemble.Nothing"},
        {"estimator": "sklearn.ensemble.ExtraTreesRegressor", "settings": {"x": 1}},
    ):
        with pytest.raises(DeclarationError, match="Name a class of scikit-learn"):
            fitted("sklearn", "regression", settings)
