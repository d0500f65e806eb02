"""How far one predictor's answers are from another's, and how far they may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.models.protocol import Floats

Values = npt.NDArray[Any]
Answers = Callable[[Values], Floats]
MOST_EDGES = 2_000


@dataclass(frozen=True, slots=True)
class Probes:
    """Where a copy of a model is likely to differ from it.

    ``edges`` are values at which an answer jumps or bends, each with its column, as numbers of ``dtype``; ``categories`` gives the
    number of learned codes of each column of codes.
    """

    edges: Sequence[tuple[int, float]] = ()
    categories: Mapping[int, int] = field(default_factory=dict)
    dtype: type[np.floating[Any]] = np.float64


@dataclass(frozen=True, slots=True)
class Comparison:
    """Answers of two predictors to the same ``rows``.

    ``absolute`` is the largest difference; ``relative`` the largest over the size of the answer, or over the mean size where that is
    larger; ``rank`` the least rank correlation of an output (Spearman's, 1 where all answers are equal); ``otherwise`` the largest share
    of rows that are on the other side of a threshold of decisions.
    """

    rows: int
    absolute: float
    relative: float
    rank: float
    otherwise: float

    @classmethod
    def of(cls, first: Floats, second: Floats, decide_at: Sequence[float] = ()) -> Comparison:
        """Of answers of shape ``(n,)`` or ``(n, outputs)`` each, ``first`` being those that hold."""
        apart = np.where(first == second, 0.0, np.abs(first - second))
        apart[np.isnan(first) != np.isnan(second)] = np.inf
        apart[np.isnan(first) & np.isnan(second)] = 0.0
        size = np.maximum(np.abs(first), np.abs(first).mean(axis=0))
        relative = np.divide(apart, size, out=np.where(apart > 0, np.inf, 0.0), where=size > 0)
        columns = zip(first.reshape(len(first), -1).T, second.reshape(len(second), -1).T, strict=True)
        rank = min(_spearman(one, other) for one, other in columns)
        otherwise = max((float(np.mean((first >= at) != (second >= at))) for at in decide_at), default=0.0)
        return cls(len(first), float(apart.max()), float(relative.max()), rank, otherwise)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest relative difference, and the largest share of rows decided otherwise, that pass for the same."""

    relative: float = 1e-5
    otherwise: float = 0.0


@dataclass(frozen=True, slots=True)
class Parity:
    """Comparisons by what the rows are: ``given``, ``thresholds``, ``missing``, ``unknown``; a part without rows is left out."""

    parts: Mapping[str, Comparison]

    def within(self, tolerance: Tolerance) -> bool:
        """Whether every part is."""
        return all(one.relative <= tolerance.relative and one.otherwise <= tolerance.otherwise for one in self.parts.values())

    def lines(self) -> list[str]:
        """The figures, a line a part."""
        return [
            f"{name:<10} {one.rows:>6} rows  difference {one.absolute:.3g} absolute, {one.relative:.3g} relative  "
            f"rank correlation {one.rank:.6f}  decided otherwise {one.otherwise:.2%}"
            for name, one in self.parts.items()
        ]


def compared(first: Answers, second: Answers, x: Values, probes: Probes, decide_at: Sequence[float] = ()) -> Parity:
    """Two predictors on the rows ``x`` of shape ``(n, d)``, ``n`` at least 1, and on rows made of them.

    ``thresholds``: up to 2,000 edges, each on a row, exactly and one unit in the last place below and above. ``missing``: each
    column missing in turn, then all. ``unknown``: codes that were not learned.
    """
    rows = {"given": x, "thresholds": _on_edges(x, probes), "missing": _missing(x), "unknown": _unknown(x, probes)}
    return Parity({name: Comparison.of(first(one), second(one), decide_at) for name, one in rows.items() if len(one)})


def _on_edges(x: Values, probes: Probes) -> Values:
    distinct = sorted(set(probes.edges))
    chosen = [distinct[i] for i in np.unique(np.linspace(0, len(distinct) - 1, min(len(distinct), MOST_EDGES)).astype(int))]
    rows = np.repeat(_taken(x, len(chosen)), 3, axis=0)
    for row, (column, value) in enumerate(chosen):
        exact, below, above = (probes.dtype(one) for one in (value, -np.inf, np.inf))
        rows[3 * row : 3 * row + 3, column] = [np.nextafter(exact, below), exact, np.nextafter(exact, above)]
    return rows


def _missing(x: Values) -> Values:
    if x.dtype != np.float64:
        return x[:0]
    rows = _taken(x, x.shape[1] + 1)
    rows[np.arange(x.shape[1]), np.arange(x.shape[1])] = np.nan
    rows[-1] = np.nan
    return rows


def _unknown(x: Values, probes: Probes) -> Values:
    strange = [(column, code) for column, count in probes.categories.items() for code in (count, count + 1, 1e6, -1.0)]
    rows = _taken(x, len(strange))
    for row, (column, code) in enumerate(strange):
        rows[row, column] = code
    return rows


def _taken(x: Values, count: int) -> Values:
    return x[np.arange(count) % len(x)].copy()


def _spearman(first: Floats, second: Floats) -> float:
    """Rank correlation with mean ranks for ties."""
    ranks = [_ranks(one) for one in (first, second)]
    spread = [float(one.std()) for one in ranks]
    if min(spread) == 0:
        return 1.0 if spread[0] == spread[1] else 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=np.float64)
