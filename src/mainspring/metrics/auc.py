"""Variance of ROC AUC and of the difference of two, without resampling.

Source: DeLong, DeLong, Clarke-Pearson, Biometrics 44, 1988; in O(n log n): Sun, Xu, IEEE Signal Processing Letters 21, 2014.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainspring.metrics.classification import as_truth
from mainspring.metrics.intervals import clopper_pearson

Floats = NDArray[np.float64]


def delong(scores: Floats, truth: NDArray[Any]) -> tuple[Floats, Floats]:
    """AUC of each of ``m`` models on the same rows, shape ``(m,)``, and their covariance, ``(m, m)``; ``scores`` is ``(m, n)``.

    Raises:
        ValueError: the shapes do not fit, a score is NaN, a truth is neither 0 nor 1, or a class has fewer than two rows.
    """
    known = as_truth(truth)
    positives, negatives = int(known.sum()), int((~known).sum())
    if scores.ndim != 2 or scores.shape[1:] != truth.shape or np.isnan(scores).any():
        raise ValueError(f"scores of shape {scores.shape} are not (models, {len(truth)}) without NaN")
    if min(positives, negatives) < 2:
        raise ValueError(f"{positives} true and {negatives} false rows: at least two of each are needed")
    of_true = np.array([_ranks(one)[known] - _ranks(one[known]) for one in scores]) / negatives
    of_false = 1 - np.array([_ranks(one)[~known] - _ranks(one[~known]) for one in scores]) / positives
    covariance = np.atleast_2d(np.cov(of_true)) / positives + np.atleast_2d(np.cov(of_false)) / negatives
    return of_true.mean(axis=1), covariance


def auc_interval(score: Floats, truth: NDArray[Any], level: float = 0.95) -> tuple[float, float]:
    """Interval of ROC AUC on the logit scale, so that it stays between 0 and 1; errors as `delong`.

    Classes that do not overlap show no variance: the bound is then that of as many disjoint pairs as there are, all right.
    """
    areas, covariance = delong(score[None, :], truth)
    area, z = float(areas[0]), NormalDist().inv_cdf((1 + level) / 2)
    if area in (0.0, 1.0):
        pairs = int(min(truth.sum(), len(truth) - truth.sum()))
        return clopper_pearson(round(area * pairs), pairs, level)
    half = z * math.sqrt(float(covariance[0, 0])) / (area * (1 - area))
    middle = math.log(area / (1 - area))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[codes]
