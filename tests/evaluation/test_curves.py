import math

import numpy as np
import pytest
from sklearn import metrics as oracle

from mainspring.errors import DeclarationError
from mainspring.evaluation.curves import best_threshold, cost_curve, gains, threshold_curve
from mainspring.metrics import confusion
from mainspring.spec import Costs

RNG = np.random.default_rng(0)
SCORE = RNG.integers(0, 30, 500) / 30
TRUTH = RNG.random(500) < SCORE
COSTS = Costs(tp=1.0, fp=1.0, fn=9.0)


def test_the_threshold_curve_is_that_of_scikit_learn() -> None:
    curve = threshold_curve(SCORE, TRUTH)
    precision, recall, thresholds = oracle.precision_recall_curve(TRUTH, SCORE)
    assert curve.threshold[::-1] == pytest.approx(thresholds)
    assert curve.precision[::-1] == pytest.approx(precision[:-1])
    assert curve.recall[::-1] == pytest.approx(recall[:-1])
    false, true, cuts = oracle.roc_curve(TRUTH, SCORE, drop_intermediate=False)
    assert curve.false_alarm_rate == pytest.approx(false[1:])
    assert curve.recall == pytest.approx(true[1:])
    assert curve.alert_rate == pytest.approx([(cut <= SCORE).mean() for cut in cuts[1:]])


def test_a_long_curve_is_thinned_evenly() -> None:
    rng = np.random.default_rng(1)
    curve = threshold_curve(rng.random(100_000), rng.random(100_000) < 0.1, points=50)
    assert len(curve.threshold) == 50
    assert curve.alert_rate == pytest.approx(np.arange(1, 51) / 50)
    assert np.isnan(threshold_curve(np.arange(3.0), np.zeros(3)).recall).all()


def test_costs_at_every_threshold_are_counted_by_outcome() -> None:
    curve = cost_curve(SCORE, TRUTH, COSTS)
    for threshold, cost in zip(curve.threshold, curve.cost, strict=True):
        counts = confusion(SCORE, TRUTH, threshold=float(threshold))
        assert cost == pytest.approx((counts.tp * 1 + counts.fp * 1 + counts.fn * 9) / 500)
    assert curve.threshold[0] == math.inf
    assert curve.cost[0] == pytest.approx(9 * TRUTH.mean())
    assert COSTS.threshold == pytest.approx(1 / 9)
    with pytest.raises(DeclarationError, match="cheaper"):
        Costs(tp=5, fp=1, fn=2)


def test_the_best_threshold_of_calibrated_scores_is_that_of_the_costs() -> None:
    rng = np.random.default_rng(2)
    covered = costs_covered = 0
    expected = []
    for _ in range(60):
        score = rng.integers(0, 40, 1500) / 40
        truth = rng.random(1500) < score
        best = best_threshold(score, truth, COSTS, rng=rng, draws=100)
        covered += best.threshold_low <= 5 / 40 <= best.threshold_high
        true_cost = np.where(np.arange(40) / 40 >= best.threshold, 1.0, 9 * np.arange(40) / 40).mean()
        costs_covered += best.cost_low <= true_cost <= best.cost_high
        expected.append((best.cost, best.expected, true_cost))
    assert covered >= 0.88 * 60
    assert costs_covered >= 0.85 * 60
    apparent, left_out, true = np.mean(expected, axis=0)
    assert apparent < true
    assert apparent < left_out
    assert left_out == pytest.approx(true, rel=0.01)


def test_blocks_widen_the_interval_and_one_tells_nothing() -> None:
    rng = np.random.default_rng(3)
    days = np.repeat(np.arange(20), 100)
    truth = rng.random(2000) < np.clip(0.3 + rng.normal(size=20)[days] * 0.15, 0, 1)
    score = np.clip(truth * 0.3 + rng.random(2000) * 0.7, 0, 1)
    rows = best_threshold(score, truth, COSTS, rng=rng, draws=200)
    blocked = best_threshold(score, truth, COSTS, rng=rng, blocks=days, draws=200)
    assert blocked.cost_high - blocked.cost_low > 1.3 * (rows.cost_high - rows.cost_low)
    one = best_threshold(score, truth, COSTS, rng=rng, blocks=np.zeros(2000))
    assert (one.threshold, one.threshold_low, one.cost_high) == (rows.threshold, -math.inf, math.inf)


def test_never_to_alert_can_be_the_best() -> None:
    best = best_threshold(RNG.random(300), np.zeros(300), Costs(0, 1, 2), rng=RNG, draws=50)
    assert (best.threshold, best.cost, best.threshold_high) == (math.inf, 0.0, math.inf)


def test_lift_and_gain_by_hand() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5, 0.1, 0.0])
    truth = np.array([1, 1, 0, 1, 1, 0, 0, 0, 0, 0])
    table = gains(score, truth, bands=5)
    assert [one.positives for one in table] == pytest.approx([2, 1, 0.5, 0.5, 0])
    assert [one.lift for one in table] == pytest.approx([2.5, 1.25, 0.625, 0.625, 0])
    assert [one.gained for one in table] == pytest.approx([0.5, 0.75, 0.875, 1, 1])
    assert table[0].rate == 1.0
    assert math.isnan(gains(score, 0 * truth)[0].lift)
