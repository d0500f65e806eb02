from __future__ import annotations

import json
import time

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from mainspring.errors import DeclarationError
from mainspring.metrics import mae, roc_auc
from mainspring.training.compression import Bound, Side, loss_of, side_by_side
from mainspring.training.compression.measure import values_of

X, Y = load_breast_cancer(return_X_y=True)
X, Y = (X - X.mean(axis=0)) / X.std(axis=0), Y.astype(float)
GOOD = LogisticRegression().fit(X[:300], Y[:300]).predict_proba(X)[:, 1][300:]
BAD = LogisticRegression().fit(X[:300, :2], Y[:300]).predict_proba(X[:, :2])[:, 1][300:]
TRUTH = Y[300:]


def test_a_loss_is_positive_whichever_way_the_measure_runs() -> None:
    higher, lower = (loss_of(Bound(name, 0.01), GOOD, BAD, TRUTH) for name in ("roc_auc", "brier"))
    assert higher.lost == pytest.approx(roc_auc(GOOD, TRUTH) - roc_auc(BAD, TRUTH))
    assert higher.lost > 0
    assert lower.lost > 0
    gained = loss_of(Bound("roc_auc", 0.01), BAD, GOOD, TRUTH)
    assert gained.lost == pytest.approx(-higher.lost)
    assert gained.holds
    assert not higher.holds


def test_nothing_lost_holds_and_what_cannot_be_told_does_not() -> None:
    same = loss_of(Bound("mae", 0.01), TRUTH, TRUTH, TRUTH)
    assert (same.lost, same.low, same.high, same.holds) == (0.0, 0.0, 0.0, True)
    one_block = loss_of(Bound("mae", 0.01), TRUTH, TRUTH, TRUTH, blocks=np.zeros(len(TRUTH)))
    assert (one_block.low, one_block.high, one_block.holds) == (None, None, False)


def test_a_loss_of_the_bound_is_let_through_seldom() -> None:
    """Answers that are worse by just the bound pass in about 2.5 % of data sets."""
    rng, passed = np.random.default_rng(0), 0
    for number in range(200):
        truth = rng.normal(size=300)
        error = rng.normal(size=300)
        worse = error + np.sign(error) * (0.1 + rng.normal(0, 0.2, 300))
        passed += loss_of(Bound("mae", 0.1), truth + error, truth + worse, truth, seed=number, draws=200).holds
    assert passed <= 14


def test_both_sides_are_measured_in_turn() -> None:
    asked: list[str] = []

    def side(name: str, seconds: float, answers: np.ndarray) -> Side:  # type: ignore[type-arg]
        def answer(number: int) -> None:
            asked.append(name)
            time.sleep(seconds)

        return Side(len(name), answer, lambda: answers)

    table = side_by_side(side("slow", 0.002, TRUTH), side("fast!", 0.0, TRUTH + 0.5), TRUTH, Bound("mae", 1.0), rows=10, draws=50)
    assert {frozenset(asked[i : i + 2]) for i in range(0, len(asked), 2)} == {frozenset(("slow", "fast!"))}
    assert table.original.p50 > 1_900 > table.compressed.p50
    assert table.compressed.p99 >= table.compressed.p50
    assert (table.smaller, table.compressed.value, table.loss.lost) == (4 / 5, mae(TRUTH + 0.5, TRUTH), 0.5)
    assert table.loss.holds
    assert json.loads(json.dumps(table.to_dict()))["holds"] is True
    assert "must stay below 1" in table.lines()[-1]


def test_alerts_are_measured_at_their_rate() -> None:
    bound = Bound("recall", 0.1, alert_rate=0.3)
    assert loss_of(bound, GOOD, BAD, TRUTH).lost == pytest.approx(bound.value(GOOD, TRUTH) - bound.value(BAD, TRUTH))
    for metric, rate in (("recall", None), ("recall", 1.5), ("mae", 0.3)):
        with pytest.raises(DeclarationError, match="Give a share of alerts to precision, recall, f1, mcc"):
            Bound(metric, 0.1, rate)


def test_every_measure_of_a_task_is_told() -> None:
    assert {"mae", "rmse", "bias"} <= set(values_of(GOOD, TRUTH, "regression"))
    assert values_of(GOOD, TRUTH, "binary")["roc_auc"] == roc_auc(GOOD, TRUTH)


@pytest.mark.parametrize(
    ("metric", "most", "words"),
    [
        ("maee", 1.0, "Did you mean 'mae'"),
        ("bias", 1.0, "cannot bound a loss"),
        ("ndcg", 1.0, "cannot bound a loss"),
        ("mae", 0.0, "lets nothing through"),
        ("mae", float("nan"), "lets nothing through"),
    ],
)
def test_a_bound_that_bounds_nothing_is_refused(metric: str, most: float, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        Bound(metric, most)
