from __future__ import annotations

import numpy as np
import pytest

import mainspring as ms
from mainspring.errors import DeclarationError, TrainingError
from mainspring.models.tabular import TabularModel
from mainspring.training.fitting import Examples, fit_model

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


def test_labels_that_do_not_fit_are_named() -> None:
    rows = payments(500, 3)
    for label in (np.zeros(500), np.full(500, 2.0), rows.label + 0.5):
        with pytest.raises(TrainingError, match="binary needs classes numbered from 0"):
            fit_model(ms.LightGBM(objective="binary"), NAMES, Examples(rows.columns, label), rows)
    with pytest.raises(TrainingError, match="Give groups"):
        fit_model(ms.LightGBM(objective="lambdarank"), NAMES, rows, rows)


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
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        make()  # type: ignore[operator]
