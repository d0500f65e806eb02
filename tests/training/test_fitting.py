from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mainspring as ms
from mainspring.errors import DeclarationError, TrainingError
from mainspring.models.tabular import TabularModel
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

NAMES = ["a", "shop"]


def payments(n: int, seed: int) -> Examples:
    """About one in thirty is fraud, more in one shop and at high amounts."""
    rng = np.random.default_rng(seed)
    amount, shop = rng.normal(size=n), rng.choice(["s", "t", "u"], n).astype(object)
    odds = -5 + 1.5 * amount + 2 * (shop == "u")
    return Examples({"a": amount, "shop": shop}, (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(float))


def fit(spec: ms.LightGBM | ms.Linear) -> tuple[TabularModel, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    model = fit_model(spec, NAMES, payments(60_000, 0), payments(20_000, 1), threads=1)
    asked = payments(30_000, 2)
    return model, model.predict(asked.columns), asked.label


@pytest.mark.parametrize("calibration", [None, "isotonic", "platt"])
@pytest.mark.parametrize("negatives", [1.0, 0.1])
def test_probabilities_come_true_whatever_was_left_out(calibration: str | None, negatives: float) -> None:
    _, said, truth = fit(ms.LightGBM(objective="binary", trees=120, leaves=8, negatives=negatives, calibration=calibration))
    assert said.mean() == pytest.approx(truth.mean(), rel=0.12)
    high = said > np.quantile(said, 0.95)
    assert said[high].mean() == pytest.approx(truth[high].mean(), rel=0.15)


def test_balanced_classes_weigh_the_same() -> None:
    _, said, truth = fit(ms.Linear(objective="binary", balanced=True))
    assert said.mean() > 4 * truth.mean()
    calibrated = fit(ms.Linear(objective="binary", balanced=True, calibration="platt"))[1]
    assert calibrated.mean() == pytest.approx(truth.mean(), rel=0.1)


def test_a_row_and_what_was_stored_give_the_same_bits() -> None:
    model, said, _ = fit(ms.LightGBM(objective="binary", trees=30, negatives=0.3, calibration="isotonic"))
    asked = payments(30_000, 2)
    again = TabularModel.from_artifacts(model.to_artifacts())
    for row in range(50):
        values = [asked.columns[name][row] for name in NAMES]
        assert model.predict_row(values)[0] == again.predict_row(values)[0] == said[row]
    assert [name for name, _ in model.reasons([2.0, "u"], 2)] in (["a", "shop"], ["shop", "a"])


def test_a_ranker_learns_the_order_within_queries() -> None:
    def queries(seed: int) -> Examples:
        rng = np.random.default_rng(seed)
        fit_, groups = rng.normal(size=2_000), np.repeat(np.arange(200), 10)
        relevance = np.clip(np.round(fit_ + rng.normal(0, 0.3, 2_000) + 1), 0, 3)
        return Examples({"a": fit_, "shop": rng.choice(["s", "t"], 2_000).astype(object)}, relevance, groups=groups)

    for spec in (ms.LightGBM(objective="lambdarank", trees=30), ms.XGBoost(objective="lambdarank", trees=30)):
        asked = queries(2)
        scores = fit_model(spec, NAMES, queries(0), queries(1), threads=1).predict(asked.columns)
        best = [asked.label[start : start + 10][scores[start : start + 10].argmax()] for start in range(0, 2_000, 10)]
        assert np.mean(best) > asked.label.mean() + 1


def test_trees_are_of_a_size_and_learn_from_a_share_by_their_task_unless_told_otherwise() -> None:
    def size(**declared: Any) -> tuple[int, float]:
        _, settings = ms.LightGBM(**declared).learner
        return settings["leaves"], settings["row_fraction"]

    assert size() == size(objective="multiclass", classes=3) == (31, 1.0)
    assert size(objective="binary") == (15, 0.5)
    assert size(objective="lambdarank") == (31, 0.7)
    assert size(objective="binary", leaves=31, row_fraction=1.0) == (31, 1.0)
    with pytest.raises(DeclarationError, match=r"row_fraction=0.0 must be a share"):
        ms.LightGBM(row_fraction=0.0)


def test_labels_that_do_not_fit_are_named() -> None:
    rows = payments(500, 3)
    for label in (np.zeros(500), np.full(500, 2.0), rows.label + 0.5):
        with pytest.raises(TrainingError, match="binary needs classes numbered from 0"):
            fit_model(ms.LightGBM(objective="binary"), NAMES, Examples(rows.columns, label), rows)
    with pytest.raises(TrainingError, match="Give groups"):
        fit_model(ms.LightGBM(objective="lambdarank"), NAMES, rows, rows)


def noisy(n: int, seed: int) -> Examples:
    """Noise that grows with ``b`` alone, of which the middle says nothing; ``plan`` is what the model corrects."""
    rng = np.random.default_rng(seed)
    plan, b = rng.uniform(10, 50, n), rng.uniform(0, 1, n)
    return Examples({"plan": plan, "b": b}, plan + 2 + (1 + 9 * b) * rng.normal(size=n))


@pytest.mark.parametrize(
    "spec",
    [
        ms.LightGBM(trees=60, leaves=8, offset="plan", interval=(0.1, 0.9), interval_by="quantiles"),
        ms.XGBoost(trees=60, depth=3, offset="plan", interval=(0.1, 0.9), interval_by="quantiles"),
        ms.Net(hidden=(16,), epochs=12, offset="plan", interval=(0.1, 0.9), interval_by="quantiles"),
    ],
    ids=lambda spec: type(spec).__name__,
)
def test_quantiles_cover_and_follow_the_row_also_after_storing(spec: ms.LightGBM) -> None:
    model = fit_model(spec, ["plan", "b"], noisy(6_000, 0), noisy(3_000, 1), threads=1)
    asked = noisy(6_000, 2)
    score, low, high = model.predict_bounds(asked.columns)
    assert low is not None
    assert high is not None
    assert (asked.label < low).mean() == pytest.approx(0.1, abs=0.02)
    assert (asked.label > high).mean() == pytest.approx(0.1, abs=0.02)
    calm = asked.columns["b"] < 0.2
    assert (high - low)[calm].mean() < 0.5 * (high - low)[~calm].mean()
    again = TabularModel.from_artifacts(model.to_artifacts())
    for row in range(20):
        values = [asked.columns[name][row] for name in ("plan", "b")]
        assert again.predict_row(values) == model.predict_row(values) == (score[row], low[row], high[row])


@pytest.mark.parametrize("calibration", [None, "isotonic"])
def test_sets_of_two_classes_cover_and_serve(calibration: str | None) -> None:
    spec = ms.LightGBM(objective="binary", trees=60, leaves=8, calibration=calibration, sets=0.95, sets_by="aps", sets_per_class=True)
    model, _, truth = fit(spec)
    asked = payments(30_000, 2)
    inside = model.predict_sets(asked.columns, np.random.default_rng(0))[np.arange(len(truth)), truth.astype(int)]
    for one in (0, 1):
        assert inside[truth == one].mean() == pytest.approx(0.95, abs=0.03)
    certain = model.predict_sets(asked.columns)
    again = TabularModel.from_artifacts(model.to_artifacts())
    for row in range(20):
        values = [asked.columns[name][row] for name in NAMES]
        assert again.predict_set_row(values) == tuple(np.flatnonzero(certain[row]))


def test_sets_of_several_classes_cover() -> None:
    def shops(seed: int) -> Examples:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=8_000)
        return Examples({"a": x, "shop": rng.choice(["s", "t"], 8_000).astype(object)}, np.digitize(x + rng.normal(0, 0.7, 8_000), [-1, 1]))

    spec = ms.LightGBM(objective="multiclass", classes=3, trees=30, leaves=8, sets=0.9)
    model, asked = fit_model(spec, NAMES, shops(0), shops(1), threads=1), shops(2)
    inside = model.predict_sets(asked.columns)
    assert inside[np.arange(8_000), asked.label].mean() == pytest.approx(0.9, abs=0.015)
    again = TabularModel.from_artifacts(model.to_artifacts())
    assert again.predict_set_row([0.0, "s"]) == again.predict_set_row([0.0, "s"]) != ()


def test_a_model_without_sets_says_so() -> None:
    model, _, _ = fit(ms.LightGBM(objective="binary", trees=5))
    with pytest.raises(DeclarationError, match="Declare them: sets="):
        model.predict_set_row([0.0, "u"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ms.LightGBM(negatives=0.5), "for two classes, the task is regression"),
        (lambda: ms.LightGBM(objective="binary", negatives=0.0), "must be a share above 0"),
        (lambda: ms.LightGBM(objective="binary", interval=(0.1, 0.9)), "for numbers, the task is binary"),
        (lambda: ms.LightGBM(objective="binary", calibration="plat"), "Did you mean 'platt'"),
        (lambda: ms.XGBoost(objective="multiclass"), "more than two classes make it multiclass"),
        (lambda: ms.XGBoost(objective="poisson"), "objective 'poisson' is not known"),
        (lambda: ms.XGBoost(depth=0), "depth >= 1"),
        (lambda: ms.Linear(objective="quantile"), "objective 'quantile' is not known"),
        (lambda: ms.Net(shape="cnn"), "shape 'cnn' is not known"),
        (lambda: ms.Net(crosses=[("a", "b")]), "for shape='wide_and_deep'"),
        (lambda: ms.Sklearn("os.system"), "is not of scikit-learn"),
        (lambda: ms.LightGBM(interval_by="quantiles"), "needs interval="),
        (lambda: ms.Linear(interval=(0.1, 0.9), interval_by="quantiles"), "a learner of quantiles"),
        (lambda: ms.LightGBM(interval=(0.1, 0.9), interval_by="quantile"), "Did you mean 'quantiles'"),
        (lambda: ms.LightGBM(sets=0.9), "sets are for classes, the task is regression"),
        (lambda: ms.LightGBM(objective="binary", sets=90), "must be a share between 0 and 1"),
        (lambda: ms.LightGBM(objective="binary", sets=0.9, sets_by="asp"), "Did you mean 'aps'"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        make()  # type: ignore[operator]
