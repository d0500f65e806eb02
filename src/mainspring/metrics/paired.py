"""Two models on the same rows: is one better, is one not worse? Differences are ``one - other``; p-values are two-sided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mainspring.metrics.auc import delong
from mainspring.metrics.intervals import binomial_below, ratio_draws
from mainspring.metrics.resampling import Statistic, bootstrap

Floats = NDArray[np.float64]
Array = NDArray[Any]

_NORMAL = NormalDist()
_EXACT = 50


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference ``one - other`` on the same rows, its interval and the p-value of "there is none"."""

    difference: float
    low: float
    high: float
    p: float

    def not_worse(self, margin: float, *, better: Literal["higher", "lower"]) -> bool:
        """Non-inferiority: the whole interval lies above ``-margin``, or below ``margin`` where lower is better.

        With a 95 % interval one that is worse by the margin passes in 2.5 % of cases. Never "no significant difference".

        Raises:
            ValueError: the margin is below 0.
        """
        if margin < 0:
            raise ValueError(f"margin {margin} is below 0: give how much worse is still acceptable")
        return self.low > -margin if better == "higher" else self.high < margin


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two losses on the same rows, its interval and the p-value of "it is 1"."""

    ratio: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    statistic: Statistic, one: Array, other: Array, shared: Sequence[Array], *, rng: np.random.Generator, blocks: Array | None = None,
    draws: int = 1000, level: float = 0.95,
) -> Comparison:  # fmt: skip
    """``statistic(one, *shared) - statistic(other, *shared)``: both models measured on each resample of rows or of ``blocks``.

    ``p`` is twice the share of resamples on the far side of 0, at least ``2 / (draws + 1)``. Errors as `bootstrap`. Where the
    difference cannot be told (fewer than two blocks, NaN on half of the resamples) the interval is infinite and ``p`` is 1.
    """

    def difference(first: Array, second: Array, *rest: Array) -> float:
        return statistic(first, *rest) - statistic(second, *rest)

    measured = difference(one, other, *shared)
    values = bootstrap(difference, (one, other, *shared), rng=rng, blocks=blocks, draws=draws)
    if 2 * len(values) <= draws or len(one if blocks is None else np.unique(blocks)) < 2:
        return Comparison(measured, -math.inf, math.inf, 1.0)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    beyond = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return Comparison(measured, float(low), float(high), min(1.0, 2 * (beyond + 1) / (len(values) + 1)))


def paired_ratio(one: Floats, other: Floats, blocks: Array, *, rng: np.random.Generator, draws: int = 2000, level: float = 0.95) -> Ratio:
    """``sum(one) / sum(other)`` of the losses of two models on the same rows, whole ``blocks`` drawn, by sums: fast.

    ``p`` is as in `paired_bootstrap`; where the ratio cannot be told (fewer than two blocks) the interval is infinite and ``p`` is 1.
    Errors as `ratio_interval`.
    """
    ratios = ratio_draws(one, other, blocks, rng=rng, draws=draws)
    measured = float(one.sum() / other.sum())
    if ratios is None:
        return Ratio(measured, -math.inf, math.inf, 1.0)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    beyond = min(int((ratios <= 1).sum()), int((ratios >= 1).sum()))
    return Ratio(measured, float(low), float(high), min(1.0, 2 * (beyond + 1) / (len(ratios) + 1)))


def paired_auc(one: Floats, other: Floats, truth: Array, level: float = 0.95) -> Comparison:
    """Difference of ROC AUC by DeLong's covariance; errors as `delong`."""
    areas, covariance = delong(np.stack([one, other]), truth)
    difference = float(areas[0] - areas[1])
    error = math.sqrt(max(float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]), 0.0))
    half = _NORMAL.inv_cdf((1 + level) / 2) * error
    p = 2 * _NORMAL.cdf(-abs(difference) / error) if error > 1e-12 else float(abs(difference) < 1e-12)
    return Comparison(difference, difference - half, difference + half, p)


def mcnemar(one_right: Array, other_right: Array) -> float:
    """Exact p-value of "both are right equally often", from the rows where only one of them is. Source: McNemar, Psychometrika 12, 1947.

    Raises:
        ValueError: the shapes differ.
    """
    _check(one_right, other_right)
    first, second = one_right.astype(np.bool_), other_right.astype(np.bool_)
    only_one, only_other = int((first & ~second).sum()), int((second & ~first).sum())
    if not only_one + only_other:
        return 1.0
    return min(1.0, 2 * binomial_below(min(only_one, only_other), only_one + only_other, 0.5))


def wilcoxon(one: Floats, other: Floats) -> float:
    """p-value of "the paired differences are symmetric about 0" by the signed-rank test; rows without a difference are left out.

    Exact for up to 50 differences without ties among their sizes, else normal with the correction for ties.
    Source: Wilcoxon, Biometrics Bulletin 1, 1945.

    Raises:
        ValueError: the shapes differ.
    """
    _check(one, other)
    difference = one - other
    difference = difference[difference != 0]
    n = len(difference)
    if not n:
        return 1.0
    _, codes, counts = np.unique(np.abs(difference), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    least = min(float(ranks[difference > 0].sum()), float(ranks[difference < 0].sum()))
    if n <= _EXACT and (counts == 1).all():
        return min(1.0, 2 * float(_signed_rank_counts(n)[: int(least) + 1].sum()) / 2.0**n)
    variance = n * (n + 1) * (2 * n + 1) / 24 - float((counts**3 - counts).sum()) / 48
    return 2 * _NORMAL.cdf((least - n * (n + 1) / 4) / math.sqrt(variance))


def _signed_rank_counts(n: int) -> Floats:
    """In how many of the ``2 ** n`` sign patterns the ranks with a plus sum to 0, 1, 2, ..."""
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] += counts[:-rank].copy()
    return counts


def _check(one: Array, other: Array) -> None:
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"shapes {one.shape} and {other.shape} are not those of two arrays of one length")
