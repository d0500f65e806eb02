import math
from math import comb

import numpy as np
import pytest

from mainspring.metrics import quantile_interval, ratio_interval, wilson


def test_the_block_bootstrap_covers_where_rows_of_a_day_go_together() -> None:
    rng = np.random.default_rng(1)
    covered = naive = 0
    for _ in range(200):
        days = np.repeat(np.arange(40), 25)
        errors = np.abs(rng.normal(size=1000)) * np.exp(0.5 * rng.normal(size=40))[days]
        truth = math.sqrt(2 / math.pi) * math.exp(0.125)
        low, high = ratio_interval(errors, np.ones(1000), days, rng=rng, draws=300)
        covered += low <= truth <= high
        low, high = ratio_interval(errors, np.ones(1000), np.arange(1000), rng=rng, draws=100)
        naive += low <= truth <= high
    assert covered >= 0.88 * 200
    assert naive <= 0.75 * 200


def test_a_ratio_on_shared_rows_is_sharper_than_its_parts() -> None:
    rng = np.random.default_rng(2)
    days = np.array([f"2013-01-{day:02d}" for day in rng.integers(1, 31, 3000)], dtype=object)
    base = rng.exponential(size=3000)
    low, high = ratio_interval(0.8 * base, base, days, rng=rng)
    assert low == pytest.approx(0.8)
    assert high == pytest.approx(0.8)


def test_the_same_generator_gives_the_same_interval_and_memory_is_bounded() -> None:
    errors, days = np.random.default_rng(3).exponential(size=20_000), np.arange(20_000)
    once, again = (ratio_interval(errors, np.ones(20_000), days, rng=np.random.default_rng(4), draws=250) for _ in range(2))
    assert once == again
    assert once[0] < errors.mean() < once[1]


def test_one_block_tells_nothing_and_no_rows_are_refused() -> None:
    ones, rng = np.ones(5), np.random.default_rng(0)
    assert ratio_interval(ones, ones, np.zeros(5), rng=rng) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="shapes"):
        ratio_interval(ones, ones[:4], np.zeros(5), rng=rng)
    with pytest.raises(ValueError, match="shapes"):
        ratio_interval(ones[:0], ones[:0], np.zeros(0), rng=rng)
    with pytest.raises(ValueError, match="denominator"):
        ratio_interval(ones, 0 * ones, np.arange(5), rng=rng)


@pytest.mark.parametrize("n", [1, 5, 59, 60, 300, 1000])
@pytest.mark.parametrize("q", [0.05, 0.5, 0.99])
def test_quantile_ranks_are_the_narrowest_that_the_binomial_allows(n: int, q: float) -> None:
    def at_most(k: int) -> float:
        return sum(comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k + 1))

    low, high = quantile_interval(np.arange(1.0, n + 1), q)
    first, last = (0 if low == -math.inf else int(low)), (n + 1 if high == math.inf else int(high))
    assert at_most(first - 1) <= 0.025 + 1e-12
    assert at_most(first) > 0.025 or first == n
    assert at_most(last - 1) >= 0.975 - 1e-12
    assert at_most(last - 2) < 0.975


def test_quantile_interval_of_many_few_and_no_values() -> None:
    low, high = quantile_interval(np.random.default_rng(5).random(1_000_000), 0.99)
    assert 0.9895 < low < 0.99 < high < 0.9905
    assert quantile_interval(np.arange(100.0), 0.99)[1] == math.inf
    assert quantile_interval(np.zeros(0), 0.5) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile_interval(np.zeros(3), 1.0)


def test_wilson() -> None:
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="cannot be"):
        wilson(3, 2)
