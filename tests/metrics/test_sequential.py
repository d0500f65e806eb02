import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.metrics import Moments, confidence_sequence, lower_sequence, upper_sequence

VALUES = st.lists(st.floats(-1e3, 1e3), max_size=30)


@given(VALUES, VALUES)
def test_moments_add_and_merge_to_the_moments_of_all(one: list[float], other: list[float]) -> None:
    added = Moments()
    for value in one + other:
        added = added.add(value)
    merged = Moments.of(np.array(one, dtype=float)).merge(Moments.of(np.array(other, dtype=float)))
    for moments in (added, merged):
        assert moments.n == len(one + other)
        assert moments.mean == pytest.approx(np.mean(one + other) if moments.n else 0, abs=1e-9)
        assert moments.variance == pytest.approx(np.var(one + other, ddof=1) if moments.n > 1 else 0, abs=1e-6)


def walks(draw: str, runs: int, rows: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    if draw == "student":
        return rng.standard_t(4, size=(runs, rows))
    return rng.exponential(size=(runs, rows)) - 1


@pytest.mark.parametrize("draw", ["student", "exponential"])
def test_two_hundred_looks_fail_no_more_often_than_alpha(draw: str) -> None:
    """Looks at 200 sizes from 100 to 10,000 rows, heavy or skewed tails, true mean 0."""
    runs, rows, alpha = 600, 10_000, 0.05
    values = walks(draw, runs, rows)
    looks = np.unique(np.geomspace(100, rows, 200).astype(int))
    sums, squares = np.cumsum(values, axis=1), np.cumsum(values**2, axis=1)
    two_sided, lower, upper, naive = (np.zeros(runs, dtype=bool) for _ in range(4))
    for n in looks.tolist():
        mean = sums[:, n - 1] / n
        variance = (squares[:, n - 1] - n * mean**2) / (n - 1)
        unit = confidence_sequence(n, 0.0, 1.0, alpha=alpha, tune_at=1000)[1]
        one_sided = upper_sequence(n, 0.0, 1.0, alpha=alpha, tune_at=1000)
        sd = np.sqrt(variance)
        two_sided |= np.abs(mean) > unit * sd
        lower |= mean - one_sided * sd > 0
        upper |= mean + one_sided * sd < 0
        naive |= np.abs(mean) > 1.96 * sd / math.sqrt(n)
    for failed in (two_sided, lower, upper):
        assert failed.mean() <= 1.2 * alpha
    assert naive.mean() > 4 * alpha


def test_a_real_difference_is_found() -> None:
    values = np.random.default_rng(12).normal(0.2, 1, 2000)
    found = [n for n in range(100, 2001, 50) if lower_sequence(n, values[:n].mean(), values[:n].var(), alpha=0.05, tune_at=500) > 0]
    assert found
    assert found[0] <= 800


def test_the_width_follows_the_formula_and_is_least_where_tuned() -> None:
    n, alpha, rho2 = 500, 0.05, (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 500
    expected = math.sqrt(4.0 * 2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
    low, high = confidence_sequence(n, 10.0, 4.0, alpha=alpha, tune_at=500)
    assert (high - 10, 10 - low) == pytest.approx((expected, expected))
    widths = {tune_at: confidence_sequence(n, 0.0, 1.0, alpha=alpha, tune_at=tune_at)[1] for tune_at in (50, 250, 500, 1000, 5000)}
    assert min(widths, key=widths.__getitem__) == 500
    assert lower_sequence(n, 10.0, 4.0, alpha=alpha, tune_at=500) > low
    assert upper_sequence(n, 10.0, 4.0, alpha=alpha, tune_at=500) < high


def test_too_few_values_say_nothing() -> None:
    for n in (0, 1):
        assert confidence_sequence(n, 0.0, 0.0, alpha=0.05, tune_at=100) == (-math.inf, math.inf)
        assert lower_sequence(n, 0.0, 0.0, alpha=0.05, tune_at=100) == -math.inf
    for alpha, tune_at in ((0.0, 100), (1.0, 100), (0.05, 0)):
        with pytest.raises(ValueError, match="alpha"):
            confidence_sequence(10, 0.0, 1.0, alpha=alpha, tune_at=tune_at)
    with pytest.raises(ValueError, match="alpha"):
        lower_sequence(10, 0.0, 1.0, alpha=0.5, tune_at=100)
