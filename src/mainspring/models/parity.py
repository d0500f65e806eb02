"""How far one predictor's answers are from another's, and how far they may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comparison:
    """Answers of two predictors to the same ``rows``.

    ``absolute`` is the largest difference; ``relative`` the largest over the size of the answer, or over the mean size where that is
    larger; ``rank`` the least rank correlation of an output (Spearman's); ``otherwise`` the share of rows that are decided otherwise.
    """

    rows: int
    absolute: float
    relative: float
    rank: float
    otherwise: float


@dataclass(frozen=True, slots=True)
class Parity:
    """Comparisons by what the rows are: ``given``, ``thresholds``, ``missing``, ``unknown``."""

    parts: Mapping[str, Comparison]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest relative difference, and the largest share of rows decided otherwise, that pass for the same."""

    relative: float = 1e-5
    otherwise: float = 0.0
