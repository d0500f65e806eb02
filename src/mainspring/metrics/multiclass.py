"""Measures of predictions among classes: ``probability`` of shape ``(n, classes)``, ``truth`` of shape ``(n,)`` holds class numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CLIP = float(np.finfo(np.float64).eps)


def log_losses(probability: Floats, truth: NDArray[Any]) -> Floats:
    """``-ln`` of the probability that each row gives to the true class, in nats; clipped 2.2e-16 from 0 and 1.

    Raises:
        ValueError: the shapes do not fit, there are no rows, a class is not among the columns, or (here alone) a row does not
            sum to 1 within 1e-6.
    """
    _check(probability, truth)
    if (np.abs(probability.sum(axis=1) - 1) > 1e-6).any() or (probability < 0).any():
        raise ValueError("a row of probabilities does not sum to 1 or holds one below 0: normalise them first")
    given: Floats = probability[np.arange(len(truth)), truth.astype(np.int64)]
    losses: Floats = -np.log(np.clip(given, _CLIP, 1 - _CLIP))
    return losses


def right(probability: Floats, truth: NDArray[Any]) -> Floats:
    """1 for each row whose most probable class (the first of equals) is the true one, else 0."""
    _check(probability, truth)
    hit: NDArray[np.bool_] = probability.argmax(axis=1) == truth
    return hit.astype(np.float64)


def multiclass_log_loss(probability: Floats, truth: NDArray[Any]) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probability, truth).mean())


def multiclass_accuracy(probability: Floats, truth: NDArray[Any]) -> float:
    """Share of rows that are `right`."""
    return float(right(probability, truth).mean())


def macro_f1(probability: Floats, truth: NDArray[Any]) -> float:
    """Mean over classes, each as one against the rest, of F1; a class that is neither there nor predicted is left out."""
    counts = class_counts(probability, truth)
    both = counts.sum(axis=0) + counts.sum(axis=1)
    present = both > 0
    return float((2 * np.diag(counts)[present] / both[present]).mean())


def class_counts(probability: Floats, truth: NDArray[Any]) -> NDArray[np.int64]:
    """How often each true class (rows) was taken for each class (columns); int64 of shape ``(classes, classes)``."""
    _check(probability, truth)
    classes = probability.shape[1]
    codes = truth.astype(np.int64) * classes + probability.argmax(axis=1)
    return np.bincount(codes, minlength=classes**2).reshape(classes, classes)


def _check(probability: Floats, truth: NDArray[Any]) -> None:
    if probability.ndim != 2 or probability.shape[:1] != truth.shape or not truth.size:
        raise ValueError(f"shapes {probability.shape} and {truth.shape} are not (n, classes) and (n,) with n above 0")
    if np.isnan(probability).any():
        raise ValueError("a probability is NaN: drop its row")
    if truth.min() < 0 or truth.max() >= probability.shape[1] or (truth != truth.astype(np.int64)).any():
        raise ValueError(f"truth holds a class that is none of 0 to {probability.shape[1] - 1}")
