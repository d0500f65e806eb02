"""Confidence intervals of any measure by the bootstrap: rows, or whole blocks of rows, are drawn with replacement and measured again.

Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 (blocks), 13 (percentile), 14 (BCa).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]
Statistic = Callable[..., float]

_JACKKNIFE = 200
_NORMAL = NormalDist()


def resamples(blocks: Array | None, rows: int, *, rng: np.random.Generator, draws: int) -> Iterator[NDArray[np.int64]]:
    """Indices of ``draws`` samples of ``rows`` rows, drawn row by row, or block by block where ``blocks`` labels the rows."""
    if blocks is None:
        for _ in range(draws):
            yield rng.integers(rows, size=rows)
        return
    order, starts, sizes = _by_block(blocks)
    for _ in range(draws):
        drawn = rng.integers(len(starts), size=len(starts))
        size = sizes[drawn]
        ends = np.cumsum(size)
        yield order[np.arange(ends[-1]) + np.repeat(starts[drawn] - (ends - size), size)]


def bootstrap(
    statistic: Statistic, arrays: Sequence[Array], *, rng: np.random.Generator, blocks: Array | None = None, draws: int = 1000
) -> Floats:
    """``statistic(*arrays)`` on ``draws`` resamples: float64, without those on which it is NaN.

    ``arrays`` have one length along their first axis and are drawn together. ``blocks`` labels rows that share something (a
    day, a user): they are drawn together, so that it does not pass for information.

    Raises:
        ValueError: the lengths differ or there are no rows.
    """
    rows = _rows(arrays, blocks)
    values = np.array([statistic(*(one[taken] for one in arrays)) for taken in resamples(blocks, rows, rng=rng, draws=draws)])
    defined: Floats = values[~np.isnan(values)]
    return defined


def bootstrap_interval(
    statistic: Statistic, arrays: Sequence[Array], *, rng: np.random.Generator, blocks: Array | None = None, draws: int = 1000,
    level: float = 0.95, method: Literal["percentile", "bca"] = "percentile",
) -> tuple[float, float]:  # fmt: skip
    """Interval of ``statistic(*arrays)``; arguments and errors as in `bootstrap`.

    ``bca`` mends bias and skewness; its acceleration comes from a jackknife that leaves out one of at most 200 sets of rows
    (or blocks) at a time. Fewer than two blocks, or a measure that is NaN on half of the resamples, tell nothing: the interval
    is infinite.
    """
    values = bootstrap(statistic, arrays, rng=rng, blocks=blocks, draws=draws)
    units = _rows(arrays, blocks) if blocks is None else len(np.unique(blocks))
    if units < 2 or 2 * len(values) <= draws:
        return -math.inf, math.inf
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _corrected(tails, values, float(statistic(*arrays)), _acceleration(statistic, arrays, blocks))
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def _corrected(tails: Floats, values: Floats, measured: float, acceleration: float) -> Floats:
    """The percentiles that stand for ``tails`` once bias and skewness are taken out."""
    below = (float((values < measured).sum()) + float((values == measured).sum()) / 2) / len(values)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(values)), 1 - 0.5 / len(values)))
    shifted = [bias + _NORMAL.inv_cdf(float(tail)) for tail in tails]
    return np.array([_NORMAL.cdf(bias + one / (1 - acceleration * one)) for one in shifted])


def _acceleration(statistic: Statistic, arrays: Sequence[Array], blocks: Array | None) -> float:
    """A sixth of the skewness of the jackknife's values."""
    rows = len(arrays[0])
    units = np.arange(rows) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    parts = units % min(_JACKKNIFE, int(units.max()) + 1)
    values = np.array([statistic(*(one[parts != part] for one in arrays)) for part in range(int(parts.max()) + 1)])
    off = np.nanmean(values) - values[~np.isnan(values)]
    spread = float(np.square(off).sum()) ** 1.5
    return float((off**3).sum()) / (6 * spread) if spread else 0.0


def _by_block(blocks: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows in order of their blocks, where each block starts among them, and how many rows it has."""
    codes = np.unique(blocks, return_inverse=True)[1]
    sizes = np.bincount(codes)
    return np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes, sizes


def _rows(arrays: Sequence[Array], blocks: Array | None) -> int:
    lengths = {len(one) for one in arrays} | (set() if blocks is None else {len(blocks)})
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"arrays of lengths {sorted(lengths)} are not arrays of one length above 0")
    return lengths.pop()
