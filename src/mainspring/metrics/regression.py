"""Error measures of numeric predictions. Arrays are one-dimensional, of one length, at least one row; the truth comes last."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def errors(predicted: Floats, truth: Floats) -> Floats:
    """``predicted - truth`` of each row.

    Raises:
        ValueError: the shapes differ or there are no rows (here and in every function of this module).
    """
    _check(predicted, truth)
    return predicted - truth


def absolute_errors(predicted: Floats, truth: Floats) -> Floats:
    """The absolute error of each row."""
    return np.abs(errors(predicted, truth))


def covered(low: Floats, high: Floats, truth: Floats) -> Floats:
    """1 for each row whose truth lies in ``[low, high]``, both ends inclusive, else 0; also where an end is NaN."""
    _check(low, truth)
    _check(high, truth)
    return ((low <= truth) & (truth <= high)).astype(np.float64)


def pinball_losses(predicted: Floats, truth: Floats, quantile: float) -> Floats:
    """The pinball loss of each row, ``max(q * d, (q - 1) * d)`` with ``d = truth - predicted`` (Koenker, Bassett 1978)."""
    if not 0 < quantile < 1:
        raise ValueError(f"quantile {quantile} is not between 0 and 1")
    short = -errors(predicted, truth)
    return np.maximum(quantile * short, (quantile - 1) * short)


def mae(predicted: Floats, truth: Floats) -> float:
    """Mean absolute error, in the unit of the label."""
    return float(absolute_errors(predicted, truth).mean())


def rmse(predicted: Floats, truth: Floats) -> float:
    """Root of the mean squared error, in the unit of the label."""
    return math.sqrt(float(np.square(errors(predicted, truth)).mean()))


def bias(predicted: Floats, truth: Floats) -> float:
    """Mean of ``predicted - truth``: positive where predictions are too high."""
    return float(errors(predicted, truth).mean())


def coverage(low: Floats, high: Floats, truth: Floats) -> float:
    """Share of rows whose truth lies in ``[low, high]``; `covered` says which do."""
    return float(covered(low, high, truth).mean())


def pinball(predicted: Floats, truth: Floats, quantile: float) -> float:
    """Mean pinball loss of a predicted quantile."""
    return float(pinball_losses(predicted, truth, quantile).mean())


def _check(one: Floats, other: Floats) -> None:
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"shapes {one.shape} and {other.shape} are not those of two arrays of one length")
    if not one.size:
        raise ValueError("there are no rows to measure")
