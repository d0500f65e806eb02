import math

import numpy as np
import pytest

from mainspring.metrics import bootstrap, bootstrap_interval, ratio_interval, roc_auc


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_bca_misses_a_skewed_measure_less_on_the_side_that_percentiles_miss() -> None:
    rng = np.random.default_rng(0)
    short = {"percentile": 0, "bca": 0}
    for run in range(200):
        values = np.exp(rng.normal(size=30))
        for method in short:
            _, high = bootstrap_interval(mean, [values], rng=np.random.default_rng(run), draws=200, level=0.9, method=method)  # type: ignore[arg-type]
            short[method] += high < math.exp(0.5)
    assert short["bca"] <= 0.9 * short["percentile"]


def test_both_cover_a_mean_as_promised() -> None:
    rng = np.random.default_rng(1)
    covered = {"percentile": 0, "bca": 0}
    for _ in range(200):
        values = rng.normal(3, 1, 60)
        for method in covered:
            low, high = bootstrap_interval(mean, [values], rng=rng, draws=200, method=method)  # type: ignore[arg-type]
            covered[method] += low <= 3 <= high
    for count in covered.values():
        assert 0.9 * 200 <= count <= 0.985 * 200


def test_blocks_are_drawn_whole_and_cover_where_rows_do_not() -> None:
    rng = np.random.default_rng(2)
    blocked = naive = 0
    for _ in range(120):
        days = np.repeat(np.arange(40), 20)
        values = rng.normal(size=40)[days] + rng.normal(size=800)
        order = rng.permutation(800)
        low, high = bootstrap_interval(mean, [values[order]], rng=rng, blocks=days[order], draws=300, method="bca")
        blocked += low <= 0 <= high
        low, high = bootstrap_interval(mean, [values], rng=rng, draws=100)
        naive += low <= 0 <= high
    assert blocked >= 0.88 * 120
    assert naive <= 0.6 * 120


def test_a_mean_agrees_with_the_interval_that_has_a_formula() -> None:
    rng = np.random.default_rng(3)
    values, days = rng.exponential(size=2000), rng.integers(0, 50, 2000)
    mine = bootstrap_interval(mean, [values], rng=rng, blocks=days, draws=4000)
    assert mine == pytest.approx(ratio_interval(values, np.ones(2000), days, rng=rng, draws=4000), rel=0.01)


def test_bca_is_that_of_scipy() -> None:
    from scipy import stats

    values = np.random.default_rng(4).exponential(size=120)
    mine = bootstrap_interval(mean, [values], rng=np.random.default_rng(5), draws=9000, method="bca")
    other = stats.bootstrap((values,), np.mean, n_resamples=9000, method="BCa", rng=np.random.default_rng(6)).confidence_interval
    assert mine == pytest.approx((other.low, other.high), rel=0.01)


def test_undefined_resamples_are_left_out_and_too_many_of_them_tell_nothing() -> None:
    rng = np.random.default_rng(7)
    score, truth = rng.random(20), np.arange(20) < 2
    values = bootstrap(roc_auc, [score, truth], rng=rng, draws=500)
    assert 350 < len(values) < 500
    low, high = bootstrap_interval(roc_auc, [score, truth], rng=rng, method="bca")
    assert 0 <= low < high <= 1
    nothing = (-math.inf, math.inf)
    assert bootstrap_interval(roc_auc, [score, np.zeros(20)], rng=rng, draws=50) == nothing
    assert bootstrap_interval(mean, [score], rng=rng, blocks=np.zeros(20), draws=50) == nothing
    assert bootstrap_interval(mean, [score[:1]], rng=rng, draws=50) == nothing
    assert bootstrap_interval(mean, [np.full(5, 3.0)], rng=rng, draws=50, method="bca") == (3.0, 3.0)
    with pytest.raises(ValueError, match="lengths"):
        bootstrap(roc_auc, [score, truth[:5]], rng=rng)
    with pytest.raises(ValueError, match="lengths"):
        bootstrap(mean, [score[:0]], rng=rng)
