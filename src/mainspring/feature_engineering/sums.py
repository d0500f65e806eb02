"""Sums that do not depend on how their parts were cut: exact until they are rounded once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mainspring.columns import Array

FIRST = np.zeros(1, dtype=np.intp)
"""Where a ``reduceat`` of one slice begins. It adds in the same order wherever the slice lies, which ``reduce`` does not."""


def total(values: Array) -> Any:
    """The sum of values without nulls; whole numbers and truths as Python's integers, which do not overflow."""
    return float(np.add.reduceat(values, FIRST)[0]) if values.dtype == np.float64 else sum(values.tolist())


def expansion(values: Sequence[float]) -> list[float]:
    """Doubles whose exact sum is that of the values, each the correctly rounded rest of those before it; one where it is infinite.

    Source: Shewchuk, "Adaptive precision floating-point arithmetic", 1997, by way of `math.fsum`.
    """
    rest, terms = list(values), list[float]()
    try:
        while (term := math.fsum(rest)) or not terms:
            terms.append(term)
            rest.append(-term)
            if not math.isfinite(term):
                return terms[:1]
    except (OverflowError, ValueError):
        return [sum(values)]
    return terms


def terms(whole: int) -> list[float]:
    """The expansion of a whole number."""
    terms = [float(whole)]
    while whole := whole - int(terms[-1]):
        terms.append(float(whole))
    return terms


def squares(values: Array) -> list[float]:
    """Twice as many doubles whose exact sum is that of the squares. Source: Dekker, 1971."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * 134217729.0
        high = scaled - (scaled - values)
        low, product = values - high, values * values
        error = ((high * high - product) + 2.0 * high * low) + low * low
    return [*product.tolist(), *error.tolist()]
