"""Confidence intervals that have a formula of their own: ratios of sums over blocks, quantiles, shares."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CHUNK = 2_000_000


def ratio_interval(
    numerator: Floats, denominator: Floats, blocks: NDArray[np.generic], *, rng: np.random.Generator, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of ``sum(numerator) / sum(denominator)`` by a bootstrap of whole blocks.

    Rows of one block (a day, a user) are drawn together, so that what they share does not pass for information. A mean
    absolute error has ``numerator=|e|`` and ones below; a ratio of two has ``|e1|`` above and ``|e2|`` below, on the same
    rows. ``blocks`` labels each row. Fewer than two blocks tell nothing: the interval is infinite.
    Source: Davison, Hinkley, "Bootstrap Methods and their Application", 1997, 2.4 and 3.8.

    Raises:
        ValueError: the shapes differ, there are no rows, or the denominator does not sum to more than 0.
    """
    ratios = ratio_draws(numerator, denominator, blocks, rng=rng, draws=draws)
    if ratios is None:
        return -math.inf, math.inf
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratio_draws(
    numerator: Floats, denominator: Floats, blocks: NDArray[np.generic], *, rng: np.random.Generator, draws: int
) -> Floats | None:
    """The ratios that `ratio_interval` takes its ends from, of shape ``(draws,)``; None of fewer than two blocks."""
    if not numerator.shape == denominator.shape == blocks.shape or numerator.ndim != 1 or not numerator.size:
        raise ValueError(
            f"shapes {numerator.shape}, {denominator.shape}, {blocks.shape} are not those of three arrays of one length above 0"
        )
    if not denominator.sum() > 0:
        raise ValueError("the denominator does not sum to more than 0")
    labels, codes = np.unique(blocks, return_inverse=True)
    count = len(labels)
    if count < 2:
        return None
    sums = np.stack([np.bincount(codes, numerator, count), np.bincount(codes, denominator, count)], axis=1)
    size = max(1, _CHUNK // count)
    drawn = [sums[rng.integers(count, size=(min(size, draws - done), count))].sum(axis=1) for done in range(0, draws, size)]
    top, bottom = np.concatenate(drawn).T
    ratios: Floats = top[bottom > 0] / bottom[bottom > 0]
    return ratios


def quantile_interval(values: Floats, q: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of the ``q`` quantile of the distribution that ``values`` were drawn from, whatever that is.

    Two order statistics whose ranks bracket the quantile with at least ``level`` by the binomial distribution; an end that
    the sample is too small for is infinite. Source: David, Nagaraja, "Order Statistics", 2003, 7.1.

    Raises:
        ValueError: ``q`` is not between 0 and 1.
    """
    if not 0 < q < 1:
        raise ValueError(f"q {q} is not between 0 and 1")
    ordered = np.sort(values)
    first, below = _binomial_cdf(len(ordered), q)
    tail = (1 - level) / 2
    low = first + int(np.searchsorted(below, tail, side="right"))
    high = first + int(np.searchsorted(below, 1 - tail)) + 1
    return (float(ordered[low - 1]) if low >= 1 else -math.inf, float(ordered[high - 1]) if high <= len(ordered) else math.inf)


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a share; ``(0, 1)`` where nothing was tried. Source: Wilson, JASA 22, 1927.

    Raises:
        ValueError: ``successes`` is not between 0 and ``n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} cannot be")
    if n == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle = (successes + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (successes * (n - successes) / n + z2 / 4)) / (n + z2)
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share: covers with at least ``level`` whatever the share; ``(0, 1)`` where nothing was tried.

    Source: Clopper, Pearson, Biometrika 26, 1934; the ends are found by bisection of the binomial tails.

    Raises:
        ValueError: ``successes`` is not between 0 and ``n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} cannot be")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else 1 - _share_at(n - successes, n, tail)
    return low, (1.0 if successes == n else _share_at(successes, n, tail))


def binomial_below(k: int, n: int, q: float) -> float:
    """``P(X <= k)`` for ``X ~ Bin(n, q)``, ``0 < q < 1``; right but for 1e-20."""
    first, below = _binomial_cdf(n, q)
    if k < first:
        return 0.0
    return float(below[min(k - first, len(below) - 1)])


def _share_at(k: int, n: int, tail: float) -> float:
    """The share at which at most ``k`` of ``n`` come with probability ``tail``."""
    low, high = 0.0, 1.0
    while high - low > 1e-15 + 1e-13 * low:
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_below(k, n, middle) > tail else (low, middle)
    return high


def _binomial_cdf(n: int, q: float) -> tuple[int, Floats]:
    """``P(X <= k)`` for ``k = first, first + 1, ...`` over all but 1e-20 of the mass of ``X ~ Bin(n, q)``, and ``first``."""
    spread = 10 * math.sqrt(n * q * (1 - q)) + 50
    first, last = max(0, math.floor(n * q - spread)), min(n, math.ceil(n * q + spread))
    k = np.arange(first, last, dtype=np.float64)
    steps = np.log((n - k) / (k + 1)) + math.log(q / (1 - q))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    mass = np.exp(logs - logs.max())
    return first, np.cumsum(mass) / mass.sum()
