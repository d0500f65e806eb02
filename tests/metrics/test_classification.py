"""Against scikit-learn on random rows with many ties, and by hand where it has no answer."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from mainspring.metrics import (
    accuracy,
    average_precision,
    brier,
    class_counts,
    confusion,
    f1,
    log_loss,
    macro_f1,
    mcc,
    multiclass_accuracy,
    multiclass_log_loss,
    precision,
    recall,
    roc_auc,
    steps,
)

TIED = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60).filter(lambda rows: len({t for _, t in rows}) == 2)


@given(TIED)
def test_rank_measures_are_those_of_scikit_learn_with_ties(rows: list[tuple[int, bool]]) -> None:
    score, truth = np.array([s / 8 for s, _ in rows]), np.array([t for _, t in rows])
    assert roc_auc(score, truth) == pytest.approx(oracle.roc_auc_score(truth, score), abs=1e-12)
    assert average_precision(score, truth) == pytest.approx(oracle.average_precision_score(truth, score), abs=1e-12)
    assert log_loss(score, truth) == pytest.approx(oracle.log_loss(truth, score), rel=1e-9)
    assert brier(score, truth) == pytest.approx(oracle.brier_score_loss(truth, score), abs=1e-12)


@given(TIED, st.integers(0, 8))
def test_measures_at_a_threshold_are_those_of_scikit_learn(rows: list[tuple[int, bool]], cut: int) -> None:
    score, truth = np.array([s / 8 for s, _ in rows]), np.array([t for _, t in rows])
    alert = score >= cut / 8
    counts = confusion(score, truth, threshold=cut / 8)
    assert [counts.tn, counts.fp, counts.fn, counts.tp] == oracle.confusion_matrix(truth, alert, labels=[False, True]).ravel().tolist()
    assert recall(score, truth, threshold=cut / 8) == pytest.approx(oracle.recall_score(truth, alert))
    assert accuracy(score, truth, threshold=cut / 8) == pytest.approx(oracle.accuracy_score(truth, alert))
    assert f1(score, truth, threshold=cut / 8) == pytest.approx(oracle.f1_score(truth, alert))
    if alert.sum() > 0:
        assert precision(score, truth, threshold=cut / 8) == pytest.approx(oracle.precision_score(truth, alert))
        if alert.sum() < len(alert):
            assert mcc(score, truth, threshold=cut / 8) == pytest.approx(oracle.matthews_corrcoef(truth, alert), abs=1e-9)


def test_an_alert_budget_takes_the_highest_and_shares_what_is_left_among_equals() -> None:
    score = np.array([0.9, 0.8, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1])
    truth = np.array([1, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    assert recall(score, truth, alert_rate=0.1) == pytest.approx(1 / 3)
    assert recall(score, truth, alert_rate=0.4) == pytest.approx((1 + 2 / 4) / 3)
    assert precision(score, truth, alert_rate=0.4) == pytest.approx(1.5 / 4)
    assert confusion(score, truth, alert_rate=0.05).tp == pytest.approx(0.5)
    everything = confusion(score, truth, alert_rate=1.0)
    assert (everything.tp, everything.fp, everything.fn, everything.tn) == (3, 7, 0, 0)
    assert everything.alert_rate == 1
    assert math.isnan(confusion(score, truth, alert_rate=0.0).precision)


def test_a_budget_is_the_mean_over_every_order_of_equals() -> None:
    rng = np.random.default_rng(0)
    score, truth = rng.integers(0, 5, 200) / 5, rng.random(200) < 0.3
    shuffled = [recall(score + rng.random(200) * 1e-6, truth, alert_rate=0.13) for _ in range(2000)]
    assert recall(score, truth, alert_rate=0.13) == pytest.approx(np.mean(shuffled), abs=0.003)


def test_steps_hold_one_row_per_distinct_score() -> None:
    cut = steps(np.array([0.2, 0.7, 0.2]), np.array([True, False, False]))
    assert (cut.threshold.tolist(), cut.alerts.tolist(), cut.hits.tolist()) == ([0.7, 0.2], [1, 3], [0, 1])
    assert (cut.rows, cut.positives) == (3, 1)


def test_what_has_no_denominator_is_nan_and_what_is_wrong_is_refused() -> None:
    ones, score = np.ones(3), np.array([0.1, 0.2, 0.3])
    assert math.isnan(roc_auc(score, ones))
    assert math.isnan(average_precision(score, 0 * ones))
    assert math.isnan(mcc(score, ones, threshold=0.2))
    for wrong, words in (
        (lambda: roc_auc(score, np.ones(2)), "shapes"),
        (lambda: roc_auc(score[:0], ones[:0]), "no rows"),
        (lambda: roc_auc(np.array([0.1, np.nan, 0.2]), ones), "NaN"),
        (lambda: roc_auc(score, 2 * ones), "0 and 1"),
        (lambda: log_loss(score + 1, ones), "probabilities"),
        (lambda: recall(score, ones), "either"),
        (lambda: recall(score, ones, alert_rate=1.5), "share"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


def test_several_classes_are_measured_as_by_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        probability = rng.dirichlet(np.ones(4), 80)
        truth = rng.integers(0, rng.integers(2, 5), 80)
        taken = probability.argmax(axis=1)
        assert multiclass_log_loss(probability, truth) == pytest.approx(oracle.log_loss(truth, probability, labels=range(4)))
        assert multiclass_accuracy(probability, truth) == oracle.accuracy_score(truth, taken)
        assert macro_f1(probability, truth) == pytest.approx(oracle.f1_score(truth, taken, average="macro"))
        assert (class_counts(probability, truth) == oracle.confusion_matrix(truth, taken, labels=range(4))).all()


def test_classes_that_cannot_be_are_refused() -> None:
    probability = np.full((2, 2), 0.5)
    for values, truth, words in (
        (probability, np.array([0, 2]), "none of 0 to 1"),
        (probability, np.array([0]), "shapes"),
        (2 * probability, np.array([0, 1]), "sum to 1"),
        (np.full((2, 2), np.nan), np.array([0, 1]), "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            multiclass_log_loss(values, truth)


def test_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    score, truth = rng.integers(0, 4, 500) / 4, rng.integers(0, 2, 500)
    order = rng.permutation(500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for measure in (roc_auc, average_precision, brier):
            assert measure(score, truth) == pytest.approx(measure(score[order], truth[order]), abs=1e-12)
