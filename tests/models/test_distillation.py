from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from mainspring.errors import TrainingError
from mainspring.metrics import log_loss, mae, multiclass_log_loss
from mainspring.models.distillation import lesson
from mainspring.models.learners import learner
from mainspring.models.protocol import Predictor, Rows
from mainspring.spec import LightGBM, Linear, Model, Net, Sklearn, XGBoost

LOADERS = {"regression": load_diabetes, "binary": load_breast_cancer, "multiclass": load_digits}
METRICS = {"regression": mae, "binary": log_loss, "multiclass": multiclass_log_loss}
SMALL: dict[str, dict[str, Any]] = {
    "LightGBM": {"trees": 40, "leaves": 6, "learning_rate": 0.15},
    "XGBoost": {"trees": 40, "depth": 3, "learning_rate": 0.15},
    "Linear": {"l2": 1e-2},
    "Net": {"hidden": (24,), "epochs": 30, "batch": 64, "learning_rate": 1e-2},
    "Sklearn": {"estimator": "sklearn.ensemble.ExtraTreesRegressor", "settings": {"n_estimators": 20, "min_samples_leaf": 3}},
}
KINDS: dict[str, type[Model]] = {one.__name__: one for one in (LightGBM, XGBoost, Linear, Net, Sklearn)}


def data(task: str) -> tuple[Rows, Rows]:
    x, y = LOADERS[task](return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:900]
    x, y, cut = x[order].astype(np.float64), y[order].astype(np.float64), int(0.7 * len(order))
    return Rows(x[:cut], y[:cut]), Rows(x[cut:], y[cut:])


def spec(kind: str, task: str) -> Model:
    settings = dict(SMALL[kind])
    if kind == "Sklearn" and task != "regression":
        settings["estimator"] = "sklearn.ensemble.ExtraTreesClassifier"
    classes = {"classes": 10} if task == "multiclass" and kind not in ("Linear", "Sklearn") else {}
    return KINDS[kind](objective=task, **classes, **settings)  # type: ignore[call-arg]


def fit(declared: Model, rows: Rows) -> Predictor:
    names = [f"c{i}" for i in range(rows.x.shape[1])]
    return learner(*declared.learner).fit(rows, names=names, categorical=(), held_out=None, seed=0, threads=1)


def taught_by(teacher: Predictor, task: str, rows: Rows, **how: float) -> Rows:
    told = lesson(task, teacher.predict(rows.x), rows.y, rows.weight, **how)
    return Rows(rows.x[told.row], told.y, told.weight)


@pytest.mark.parametrize("task", LOADERS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_student_comes_to_say_what_its_teacher_says(kind: str, task: str) -> None:
    """Of another kind than the teacher, so that it can say it only by having learned it; nearer to the teacher than a constant is."""
    train, test = data(task)
    teacher = fit(spec("Net" if kind == "LightGBM" else "LightGBM", task), train)
    student = fit(spec(kind, task), taught_by(teacher, task, train))
    said, copied = teacher.predict(test.x), student.predict(test.x)
    assert copied.shape == said.shape
    assert np.mean(np.abs(copied - said)) < 0.6 * np.mean(np.abs(said - said.mean(axis=0)))
    constant = np.broadcast_to(teacher.predict(train.x).mean(axis=0), said.shape)
    assert METRICS[task](copied, test.y) < 0.9 * METRICS[task](constant, test.y)


@pytest.mark.parametrize("seed", range(3))
def test_a_small_student_learns_more_from_a_teacher_than_from_noisy_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3_000, 5))
    p = 1 / (1 + np.exp(-x[:, 0] - np.sin(3 * x[:, 1])))
    seen = Rows(x[:400], (rng.random(400) < p[:400]).astype(float))
    told = lesson("binary", p[:400], seen.y)
    errors = [
        np.mean((fit(spec("Net", "binary"), rows).predict(x[400:]) - p[400:]) ** 2)
        for rows in (Rows(seen.x[told.row], told.y, told.weight), seen)
    ]
    assert errors[0] < errors[1]


def cross_entropy(target: Any, said: Any) -> float:
    return float(-(target * np.log(said)).sum(axis=1).mean())


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 7]), st.floats(0.5, 5.0), st.floats(0.0, 1.0))
def test_the_weighted_rows_have_the_loss_of_the_mixed_probabilities(seed: int, classes: int, temperature: float, truth: float) -> None:
    rng = np.random.default_rng(seed)
    taught, said = (rng.dirichlet(np.ones(max(classes, 2)), 12) for _ in range(2))
    y = rng.integers(0, max(classes, 2), 12).astype(float)
    binary = classes == 1
    told = lesson("binary" if binary else "multiclass", taught[:, 1] if binary else taught, y, temperature=temperature, truth=truth)
    soft = taught ** (1 / temperature)
    target = (1 - truth) * soft / soft.sum(axis=1, keepdims=True) + truth * np.eye(max(classes, 2))[y.astype(int)]
    by_rows = float(-(told.weight * np.log(said[told.row, told.y.astype(int)])).sum() / 12)
    assert by_rows == pytest.approx(cross_entropy(target, said), rel=1e-6)
    assert np.bincount(told.row, told.weight) == pytest.approx(1.0)


def test_values_are_mixed_and_weights_are_kept() -> None:
    told = lesson("regression", np.array([1.0, 3.0]), np.array([2.0, 7.0]), np.array([1.0, 5.0]), truth=0.25)
    assert (told.row.tolist(), told.y.tolist(), told.weight.tolist()) == ([0, 1], [1.25, 4.0], [1.0, 5.0])
    weighted = lesson("binary", np.array([0.2, 1.0]), np.array([0.0, 1.0]), np.array([1.0, 5.0]))
    assert np.bincount(weighted.row, weighted.weight) == pytest.approx([1.0, 5.0])
    assert weighted.weight[(weighted.row == 0) & (weighted.y == 1)] == pytest.approx([0.2])


def test_what_cannot_be_taught_is_named() -> None:
    with pytest.raises(TrainingError, match="the task is ranking"):
        lesson("ranking", np.zeros(2), np.zeros(2))
    with pytest.raises(TrainingError, match="answers 1 times with no finite number"):
        lesson("regression", np.array([1.0, np.nan]), np.zeros(2))
