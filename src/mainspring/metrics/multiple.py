"""Many tests at once: p-values adjusted so that they can be read as if each were the only one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def holm(p: Sequence[float] | Floats) -> Floats:
    """Adjusted so that one false discovery among all comes with at most the level, however the tests hang together.

    Source: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    values, order = _sorted(p)
    adjusted = np.maximum.accumulate(values * np.arange(len(values), 0, -1))
    return _back(adjusted, order)


def benjamini_hochberg(p: Sequence[float] | Floats) -> Floats:
    """Adjusted so that the share of false ones among the discoveries is at most the level on average (independent or
    positively dependent tests). Source: Benjamini, Hochberg, JRSS B 57, 1995.
    """
    values, order = _sorted(p)
    adjusted = np.minimum.accumulate((values * len(values) / np.arange(1, len(values) + 1))[::-1])[::-1]
    return _back(adjusted, order)


def _sorted(p: Sequence[float] | Floats) -> tuple[Floats, NDArray[np.int64]]:
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    return values[order], order


def _back(adjusted: Floats, order: NDArray[np.int64]) -> Floats:
    result = np.empty(len(adjusted))
    result[order] = np.minimum(adjusted, 1.0)
    return result
