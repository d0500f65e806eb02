"""One measure with its interval: the fast ways are the slow way, and intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

import mainspring as ms
from mainspring.errors import TrainingError
from mainspring.evaluation.measuring import Answers, Sampling, measure, measure_quality
from mainspring.metrics import METRICS, Metric, bootstrap, clopper_pearson
from mainspring.metrics.classification import resampled_steps

RNG = np.random.default_rng(1)
N = 600
TRUTH = (RNG.random(N) < 0.3).astype(float)
SCORE = np.round(np.clip(0.3 * TRUTH + RNG.random(N) * 0.7, 0, 1), 2)
DAYS = np.sort(RNG.integers(0, 12, N))
CUTS = {name: {"alert_rate": 0.1} for name in ("precision", "recall", "f1", "mcc")}
BINARY = [metric for metric in METRICS.values() if metric.kind == "binary"]


@pytest.mark.parametrize("blocks", [DAYS, None], ids=["days", "rows"])
@pytest.mark.parametrize("metric", [one for one in BINARY if one.by_steps], ids=lambda one: one.name)
def test_what_is_sorted_once_is_what_is_resampled_and_sorted_again(metric: Metric, blocks: np.ndarray | None) -> None:
    options = CUTS.get(metric.name, {})
    cuts = resampled_steps(SCORE, TRUTH, blocks, rng=np.random.default_rng(3), draws=40)
    fast = [metric.by_steps(cut, **options) for cut in cuts]
    slow = bootstrap(
        lambda *drawn: metric.function(*drawn, **options), (SCORE, TRUTH), rng=np.random.default_rng(3), blocks=blocks, draws=40
    )
    assert fast == pytest.approx(slow, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("metric", [one for one in METRICS.values() if one.by_row], ids=lambda one: one.name)
def test_a_mean_over_rows_is_the_measure(metric: Metric) -> None:
    probability = RNG.dirichlet(np.ones(3), N)
    known = {"predicted": SCORE, "score": SCORE, "probability": probability, "low": SCORE - 0.3, "high": SCORE + 0.3, "truth": TRUTH}
    arrays, options = [known[name] for name in metric.needs], {"quantile": 0.8} if metric.name == "pinball" else {}
    assert metric.by_row(*arrays, **options).mean() == pytest.approx(metric.function(*arrays, **options))


def test_measures_of_one_call_are_those_of_many() -> None:
    chosen = [(metric, CUTS.get(metric.name, {})) for metric in BINARY]
    sampling = Sampling.of(N, DAYS)
    together = measure(chosen, Answers(SCORE), TRUTH, sampling)
    assert [one.name for one in together] == [metric.name for metric, _ in chosen]
    for one, found in zip(chosen, together, strict=True):
        assert measure([one], Answers(SCORE), TRUTH, sampling) == (found,)
        assert found.low <= found.value <= found.high or found.name == "calibration_error"


def test_rows_without_a_time_are_measured_exactly_where_a_formula_is_known() -> None:
    chosen = [(METRICS[name], {}) for name in ("accuracy", "roc_auc", "log_loss")]
    accuracy, auc, loss = measure(chosen, Answers(SCORE), TRUTH, Sampling.of(N, None))
    assert (accuracy.how, auc.how, loss.how) == ("exact", "DeLong", "rows drawn")
    assert accuracy.interval == clopper_pearson(round(accuracy.value * N), N)
    assert auc.low < auc.value < auc.high


def test_a_day_alone_tells_nothing_and_what_has_no_denominator_has_no_value() -> None:
    chosen = [(METRICS["brier"], {}), (METRICS["roc_auc"], {}), (METRICS["recall"], {"threshold": 0.5})]
    for one in measure(chosen, Answers(SCORE), np.zeros(N), Sampling.of(N, np.zeros(N, dtype=np.int64))):
        assert (one.low, one.high) == (None, None)
        assert one.interval == (-np.inf, np.inf)
        assert (one.value is None) == (one.name != "brier")


def test_days_that_differ_widen_the_interval() -> None:
    """Errors that a day shares are not so many facts: in 300 sets of 15 days the interval by days covers, that by rows does not."""
    covered = {"days": 0, "rows": 0}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        days = np.repeat(np.arange(15), 40)
        error = 1 + np.repeat(rng.normal(0, 0.3, 15), 40) + rng.normal(0, 0.5, 600)
        for name, sampling in (("days", Sampling(days, 200)), ("rows", Sampling(None, 200))):
            (found,) = measure([(METRICS["bias"], {})], Answers(error), np.zeros(600), sampling)
            covered[name] += found.low <= 1 <= found.high
    assert covered["days"] >= 0.88 * 300
    assert covered["rows"] <= 0.6 * 300


def test_a_ratio_to_a_baseline_is_measured_on_the_same_resamples() -> None:
    sampling, flat = Sampling.of(N, DAYS), np.full(N, TRUTH.mean())
    worse = np.clip(SCORE + RNG.normal(0, 0.3, N), 0, 1)
    for quality in (
        ms.at_most("brier", 1, of="b"),
        ms.at_least("average_precision", 1, of="b"),
        ms.at_most("calibration_error", 9, of="b"),
    ):
        same = measure_quality(quality, Answers(SCORE), {"b": SCORE}, TRUTH, sampling)
        assert (same.value, same.low, same.high) == (1, 1, 1)
        assert same.label == f"{quality.metric} / b"
    found = measure_quality(ms.at_least("roc_auc", 1, of="b"), Answers(SCORE), {"b": worse}, TRUTH, sampling)
    assert 1 < found.low < found.value < found.high
    assert measure_quality(ms.at_most("brier", 1, of="b"), Answers(flat), {"b": TRUTH}, TRUTH, sampling).value is None


def test_answers_without_an_interval_cannot_be_asked_for_coverage() -> None:
    with pytest.raises(TrainingError, match="'coverage': the answers have no low and high"):
        measure([(METRICS["coverage"], {})], Answers(SCORE), TRUTH, Sampling.of(N, None))
