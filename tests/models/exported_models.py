"""One fitted model of every kind that has an ONNX form, with rows like those that it was fitted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mainspring.models.adapters.nets.bodies import Mlp, WideAndDeep
from mainspring.models.adapters.nets.fitting import Schedule
from mainspring.models.adapters.nets.multitask import Mmoe, SharedBottom
from mainspring.models.adapters.nets.net import NetLearner
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.towers import TwoTowerLearner
from mainspring.models.learners import learner
from mainspring.models.protocol import Predictor, Rows

NAMES = ("a", "b", "kind", "place")
CODES = {2: 4, 3: 150}
SHORT = Schedule(epochs=3, batch=128, learning_rate=1e-2)
TREES = {"trees": 25, "learning_rate": 0.2}
FOREST = {"n_estimators": 10, "max_depth": 6}
Fit = Callable[[], Predictor]


def matrix(n: int, seed: int, missing: float = 0.08) -> Any:
    """Two numbers, one of them with a long tail, and codes of 4 and of 150 categories; some missing."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=n), np.exp(2 * rng.normal(size=n)), rng.integers(0, 4, n), rng.integers(0, 150, n)])
    x[rng.random(x.shape) < missing] = np.nan
    return x


def labels(x: Any, task: str) -> Any:
    rng = np.random.default_rng(5)
    y = np.nan_to_num(x[:, 0]) + np.log(np.nan_to_num(x[:, 1], nan=1.0)) + (x[:, 2] == 2) + np.nan_to_num(x[:, 3]) % 7 / 3
    y = y - y.mean() + rng.normal(0, 0.3, len(x))
    return {"binary": y > 0, "multiclass": np.digitize(y, [-1.0, 1.0]), "ranking": np.digitize(y, [-1, 1])}.get(task, y)


def _one(kind: str, task: str, /, **settings: Any) -> Fit:
    def fit() -> Predictor:
        x = matrix(1_500, 1)
        groups = np.repeat(np.arange(150), 10) if task == "ranking" else None
        rows = Rows(x, labels(x, task).astype(float), groups=groups)
        return learner(kind, settings).fit(rows, names=NAMES, categorical=NAMES[2:], held_out=None, seed=0, threads=1)

    return fit


def _net(body: Any, *tasks: Task, **settings: Any) -> Fit:
    def fit() -> Predictor:
        x = matrix(800, 1)
        y = np.column_stack([labels(x, task.kind) for task in tasks]).astype(float)
        made = NetLearner(body, tasks, SHORT, **settings)
        return made.fit(Rows(x, y), names=NAMES, categorical=NAMES[2:], held_out=None, seed=0, threads=1)

    return fit


def _towers() -> Predictor:
    x = matrix(800, 1, missing=0.02)
    made = TwoTowerLearner(("a", "kind"), ("b", "place"), "place", dim=8, hidden=(16,), schedule=SHORT)
    return made.fit(Rows(x, np.ones(800)), names=NAMES, categorical=NAMES[2:], held_out=None, seed=0, threads=1)


FITS: dict[str, Fit] = {
    "lightgbm": _one("lightgbm", "regression", **TREES),
    "lightgbm l1": _one("lightgbm", "regression", objective="regression_l1", **TREES),
    "lightgbm quantile": _one("lightgbm", "regression", objective="quantile", alpha=0.9, **TREES),
    "lightgbm huber": _one("lightgbm", "regression", objective="huber", **TREES),
    "lightgbm binary": _one("lightgbm", "binary", objective="binary", **TREES),
    "lightgbm multiclass": _one("lightgbm", "multiclass", objective="multiclass", classes=3, **TREES),
    "lightgbm ranks": _one("lightgbm", "ranking", objective="lambdarank", **TREES),
    "lightgbm of one leaf": _one("lightgbm", "regression", trees=2, min_leaf_rows=10_000),
    "xgboost": _one("xgboost", "regression", **TREES),
    "xgboost l1": _one("xgboost", "regression", objective="reg:absoluteerror", **TREES),
    "xgboost quantile": _one("xgboost", "regression", objective="reg:quantileerror", alpha=0.9, **TREES),
    "xgboost huber": _one("xgboost", "regression", objective="reg:pseudohubererror", **TREES),
    "xgboost binary": _one("xgboost", "binary", objective="binary:logistic", **TREES),
    "xgboost multiclass": _one("xgboost", "multiclass", objective="multi:softprob", classes=3, **TREES),
    "xgboost ranks": _one("xgboost", "ranking", objective="rank:ndcg", **TREES),
    "linear": _one("linear", "regression"),
    "linear binary": _one("linear", "binary", task="binary"),
    "linear multiclass": _one("linear", "multiclass", task="multiclass"),
    "forest": _one("sklearn", "regression", estimator="sklearn.ensemble.RandomForestRegressor", settings=FOREST),
    "extra trees": _one("sklearn", "binary", task="binary", estimator="sklearn.ensemble.ExtraTreesClassifier", settings=FOREST),
    "tree": _one("sklearn", "multiclass", task="multiclass", estimator="sklearn.tree.DecisionTreeClassifier", settings={"max_depth": 6}),
    "mlp": _net(Mlp((16, 8)), Task("regression")),
    "mlp quantile, standard": _net(Mlp((16,)), Task("quantile", level=0.9), numbers="standard"),
    "mlp multiclass": _net(Mlp((16,)), Task("multiclass")),
    "wide and deep": _net(WideAndDeep((16,), (("kind", "place"),)), Task("binary")),
    "shared bottom": _net(SharedBottom((16,), (8,)), Task("regression"), Task("binary")),
    "mmoe": _net(Mmoe(2, (16,), (8,)), Task("l1"), Task("multiclass"), Task("binary")),
    "two towers": _towers,
}  # fmt: skip
