import math

import numpy as np
import pytest
from scipy import stats

from mainspring.metrics import (
    auc_interval,
    average_precision,
    benjamini_hochberg,
    clopper_pearson,
    delong,
    holm,
    mae,
    mcnemar,
    paired_auc,
    paired_bootstrap,
    paired_ratio,
    roc_auc,
    wilcoxon,
)
from mainspring.metrics.paired import Comparison


def binormal(rng: np.random.Generator, n: int, *shifts: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Scores of models that share half of their noise; the AUC of each is ``Phi(shift / sqrt(2))``."""
    truth = rng.random(n) < 0.3
    shared = rng.normal(size=n)
    return [shift * truth + (shared + rng.normal(size=n)) / math.sqrt(2) for shift in shifts], truth


def test_shares_have_the_exact_interval() -> None:
    for k, n in ((0, 10), (1, 10), (5, 10), (10, 10), (3, 4000), (2000, 4000), (7, 2_000_000)):
        other = stats.binomtest(k, n).proportion_ci(0.9, method="exact")
        assert clopper_pearson(k, n, 0.9) == pytest.approx((other.low, other.high), rel=1e-7, abs=1e-12)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="cannot be"):
        clopper_pearson(3, 2)


def test_the_exact_interval_covers_at_least_as_promised() -> None:
    for share in (0.01, 0.2, 0.5):
        chance = stats.binom.pmf(np.arange(41), 40, share)
        covers = [low <= share <= high for low, high in (clopper_pearson(k, 40) for k in range(41))]
        assert chance[covers].sum() >= 0.95


def test_delong_is_the_variance_by_pairs() -> None:
    (one, other), truth = binormal(np.random.default_rng(0), 60, 1.0, 1.3)
    one = np.round(one, 1)
    areas, covariance = delong(np.stack([one, other]), truth)
    assert areas == pytest.approx([roc_auc(one, truth), roc_auc(other, truth)], abs=1e-12)
    kernels = [np.sign(score[truth][:, None] - score[~truth][None, :]) / 2 + 0.5 for score in (one, other)]
    rows = np.cov([kernel.mean(axis=1) for kernel in kernels]) / truth.sum()
    columns = np.cov([kernel.mean(axis=0) for kernel in kernels]) / (~truth).sum()
    assert covariance == pytest.approx(rows + columns, abs=1e-12)


def test_intervals_of_auc_cover_and_equal_models_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(1)
    covered = false_alarms = difference_covered = 0
    true = stats.norm.cdf(np.array([1.2, 1.6]) / math.sqrt(2))
    for _ in range(600):
        (one, same, better), truth = binormal(rng, 200, 1.2, 1.2, 1.6)
        low, high = auc_interval(better, truth)
        covered += low <= true[1] <= high
        false_alarms += paired_auc(one, same, truth).p < 0.05
        gain = paired_auc(better, one, truth)
        difference_covered += gain.low <= true[1] - true[0] <= gain.high
    assert 0.925 * 600 <= covered <= 0.975 * 600
    assert 0.025 * 600 <= false_alarms <= 0.075 * 600
    assert 0.925 * 600 <= difference_covered <= 0.975 * 600


def test_classes_that_do_not_overlap_still_have_an_interval() -> None:
    truth = np.arange(100) >= 90
    assert auc_interval(np.arange(100.0), truth) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert auc_interval(-np.arange(100.0), truth) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    same = paired_auc(np.arange(100.0), np.arange(100.0) * 2, truth)
    assert (same.difference, same.p) == (0.0, 1.0)
    for scores, labels, words in ((np.zeros((1, 3)), np.array([1, 0, 0]), "at least two"), (np.zeros((1, 3)), np.zeros(2), "scores of")):
        with pytest.raises(ValueError, match=words):
            delong(scores, np.append(labels, [1, 0])) if words == "scores of" else delong(scores, labels)


def test_a_hundred_thousand_rows_are_quick() -> None:
    (one, other), truth = binormal(np.random.default_rng(2), 100_000, 1.0, 1.03)
    assert paired_auc(other, one, truth).p < 0.05
    assert paired_auc(one, other, truth).high < 0.0


def test_the_paired_bootstrap_covers_with_blocks_and_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    covered = alarms = naive = 0
    for _ in range(200):
        days = np.repeat(np.arange(40), 10)
        truth = rng.normal(size=400)
        bad = rng.random(40)[days] < 0.5
        noise = rng.normal(size=400)
        one, other = truth + noise * np.where(bad, 1.5, 1.0), truth + noise * np.where(bad, 1.0, 1.5)
        result = paired_bootstrap(mae, one, other, [truth], rng=rng, blocks=days, draws=200)
        covered += result.low <= 0 <= result.high
        alarms += result.p < 0.05
        naive += paired_bootstrap(mae, one, other, [truth], rng=rng, draws=100).p < 0.05
    assert covered >= 0.89 * 200
    assert alarms <= 0.10 * 200
    assert naive > alarms


def test_any_measure_can_be_compared() -> None:
    rng = np.random.default_rng(4)
    (one, other), truth = binormal(rng, 2000, 1.5, 0.5)
    result = paired_bootstrap(average_precision, one, other, [truth], rng=rng, draws=200)
    assert result.difference == pytest.approx(average_precision(one, truth) - average_precision(other, truth))
    assert result.low > 0.1
    assert result.p == pytest.approx(2 / 201)
    nothing = paired_bootstrap(average_precision, one, other, [truth], rng=rng, blocks=np.zeros(2000), draws=20)
    assert (nothing.low, nothing.p) == (-math.inf, 1.0)


def test_one_that_is_worse_by_the_margin_passes_rarely() -> None:
    assert Comparison(0.0, -0.01, 0.01, 1.0).not_worse(0.02, better="higher")
    assert not Comparison(0.0, -0.03, 0.03, 1.0).not_worse(0.02, better="higher")
    assert Comparison(-0.5, -0.6, -0.4, 0.0).not_worse(0.0, better="lower")
    assert not Comparison(0.0, -math.inf, math.inf, 1.0).not_worse(1e9, better="lower")
    with pytest.raises(ValueError, match="margin"):
        Comparison(0.0, 0.0, 0.0, 1.0).not_worse(-0.1, better="lower")
    rng = np.random.default_rng(5)
    passed = 0
    for _ in range(300):
        truth = np.zeros(200)
        one, other = 0.2 + np.abs(rng.normal(size=200)), np.abs(rng.normal(size=200))
        passed += paired_bootstrap(mae, one, other, [truth], rng=rng, draws=200).not_worse(0.2, better="lower")
    assert passed <= 0.055 * 300


def test_mcnemar_is_the_exact_binomial() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        one, other = rng.random(80) < 0.6, rng.random(80) < 0.7
        first, second = int((one & ~other).sum()), int((other & ~one).sum())
        assert mcnemar(one, other) == pytest.approx(stats.binomtest(first, first + second).pvalue)
        assert mcnemar(one.astype(int), other.astype(int)) == mcnemar(one, other)
    assert mcnemar(one, one) == 1.0
    with pytest.raises(ValueError, match="shapes"):
        mcnemar(one, other[:3])


@pytest.mark.parametrize("n", [5, 30, 50, 200])
def test_wilcoxon_is_that_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    one, other = rng.normal(0.2, 1, n), rng.normal(size=n)
    exact = stats.wilcoxon(one, other, method="exact" if n <= 50 else "approx").pvalue
    assert wilcoxon(one, other) == pytest.approx(exact, rel=1e-9)
    one, other = np.round(one), np.round(other)
    tied = stats.wilcoxon(one, other, method="approx").pvalue
    assert wilcoxon(one, other) == pytest.approx(tied, rel=1e-9)
    assert wilcoxon(one, one) == 1.0


def test_adjusted_values_are_those_of_the_textbook_and_keep_their_level() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert holm([]).size == benjamini_hochberg([]).size == 0
    rng = np.random.default_rng(7)
    null = rng.random((2000, 20))
    assert np.mean([holm(row).min() <= 0.05 for row in null]) == pytest.approx(0.05, abs=0.015)
    mixed = np.where(np.arange(20) < 8, null**12, null)
    false = [(benjamini_hochberg(row) <= 0.1)[8:].sum() / max(1, (benjamini_hochberg(row) <= 0.1).sum()) for row in mixed]
    assert np.mean(false) <= 0.1


def test_a_ratio_of_losses_is_1_where_there_is_no_difference_and_covers_where_there_is_one() -> None:
    covered = false = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        blocks = np.repeat(np.arange(30), 20)
        shared = 2 + np.repeat(rng.normal(0, 0.5, 30), 20)
        one, other = (np.abs(shared + rng.normal(size=600)) for _ in range(2))
        equal = paired_ratio(one, other, blocks, rng=rng, draws=400)
        false += equal.p < 0.05
        worse = paired_ratio(1.1 * one, other, blocks, rng=rng, draws=400)
        covered += worse.low <= 1.1 <= worse.high
        assert worse.low < worse.ratio < worse.high
    assert false <= 0.09 * 300
    assert covered >= 0.9 * 300
    alone = paired_ratio(one, other, np.zeros(600), rng=rng)
    assert (alone.low, alone.high, alone.p) == (-math.inf, math.inf, 1.0)
    with pytest.raises(ValueError, match="more than 0"):
        paired_ratio(one, np.zeros(600), blocks, rng=rng)
