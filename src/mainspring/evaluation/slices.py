"""Where a model is worse than on the whole: measures of declared slices, and slices that are searched for.

The search reads the loss of each row, looks through all conditions on one or two features on one half of the rows, and confirms
the worst on the other half, with control for how many were tried: what it reports is no artefact of having looked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.metrics.multiple import benjamini_hochberg, holm
from mainspring.metrics.resampling import bootstrap_interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BINS = 5
VALUES = 20
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Between:
    """Rows with ``low <= column < high``; ``high`` itself where it is infinite."""

    column: str
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == -np.inf:
            return f"{self.column} < {self.high:g}"
        return f"{self.column} >= {self.low:g}" if self.high == np.inf else f"{self.low:g} <= {self.column} < {self.high:g}"


@dataclass(frozen=True, slots=True)
class Equals:
    """Rows with one value; None stands for missing."""

    column: str
    value: str | float | bool | None

    def __str__(self) -> str:
        return f"{self.column} is missing" if self.value is None else f"{self.column} = {self.value}"


Condition = Between | Equals


@dataclass(frozen=True, slots=True)
class SliceMetric:
    """A measure on the ``rows`` of a slice, with its interval."""

    name: str
    rows: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FoundSlice:
    """A slice that is worse, as measured on the rows that it was not searched on.

    ``excess`` is its mean loss less that of all other rows, with an interval; ``p`` is adjusted for all that were confirmed.
    """

    conditions: tuple[Condition, ...]
    rows: int
    loss: float
    excess: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))


def slice_metrics(
    statistic: Callable[..., float], arrays: Sequence[Array], slices: Mapping[str, Bools], *, rng: np.random.Generator,
    blocks: Array | None = None, draws: int = 1000, level: float = 0.95,
) -> tuple[SliceMetric, ...]:  # fmt: skip
    """``statistic(*arrays)`` on the rows of each declared slice (masks of shape ``(n,)``), with bootstrap intervals.

    A slice without rows is NaN in an infinite interval: it was not measured. ``blocks`` as in `bootstrap`.
    """
    measured = []
    for name, mask in slices.items():
        part = [one[mask] for one in arrays]
        if not mask.any():
            measured.append(SliceMetric(name, 0, np.nan, -np.inf, np.inf))
            continue
        inside = None if blocks is None else blocks[mask]
        low, high = bootstrap_interval(statistic, part, rng=rng, blocks=inside, draws=draws, level=level)
        measured.append(SliceMetric(name, int(mask.sum()), float(statistic(*part)), low, high))
    return tuple(measured)


def slices_of(columns: Mapping[str, Array]) -> dict[str, Bools]:
    """The slices that each column is parted into, by name: the single conditions that `find_slices` looks at."""
    parted = {name: _conditions(name, column) for name, column in columns.items()}
    return {str(one): codes == code for conditions, codes in parted.values() for code, one in enumerate(conditions)}


def rows_of(conditions: Sequence[Condition], columns: Mapping[str, Array]) -> Bools:
    """Which rows meet all conditions; shape ``(n,)``."""
    met: Bools = np.logical_and.reduce([_meets(one, columns[one.column]) for one in conditions])
    return met


def find_slices(
    columns: Mapping[str, Array], loss: Floats, *, rng: np.random.Generator, blocks: Array | None = None, min_rows: int = 100,
    candidates: int = 20, alpha: float = 0.05, control: Literal["holm", "bh"] = "holm", excess: float = 0.0,
) -> tuple[FoundSlice, ...]:  # fmt: skip
    """Slices whose mean ``loss`` (lower is better, one value per row) exceeds that of the other rows by more than ``excess``.

    Conditions are fifths of a number's values (or each value, where there are few), the 20 most frequent values of text, and
    "missing"; slices are one condition or two on different columns, with at least ``min_rows`` rows in each half. The
    ``candidates`` that look worst in one half are tested in the other by the difference of means, rows of one block counting together.
    ``holm``: a set without a worse slice reports any with about ``alpha`` at most; ``bh``: at most a share ``alpha`` of
    those reported is false, on average. The worst first; a pair is left out where one of its conditions alone looks as bad.
    Source of the search: Chung, Kraska, Polyzotis, Tae, Whang, "Slice Finder", ICDE 2019; of the halves: Cox, Biometrika 62, 1975.

    Raises:
        ValueError: ``loss`` and a column differ in length, or a loss is NaN.
    """
    if any(len(column) != len(loss) for column in columns.values()) or np.isnan(loss).any():
        raise ValueError(f"columns are not all of the {len(loss)} rows of the loss, or a loss is NaN")
    units = np.arange(len(loss)) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    if not len(loss) or units.max() < 3:
        return ()
    searched = (rng.permutation(int(units.max()) + 1) % 2 == 0)[units]
    worst = _search({name: column[searched] for name, column in columns.items()}, loss[searched], min_rows, candidates)
    kept = {name: column[~searched] for name, column in columns.items()}
    tested = [(one, _test(rows_of(one, kept), loss[~searched], units[~searched], excess, alpha)) for one in worst]
    confirmed = [(one, result) for one, result in tested if result is not None and result.rows >= min_rows]
    adjusted = (holm if control == "holm" else benjamini_hochberg)([result.p for _, result in confirmed])
    found = [
        FoundSlice(one, result.rows, result.loss, result.excess, result.low, result.high, float(p))
        for (one, result), p in zip(confirmed, adjusted, strict=True)
        if p <= alpha
    ]
    return tuple(sorted(found, key=lambda one: -one.low))


@dataclass(frozen=True, slots=True)
class _Result:
    rows: int
    loss: float
    excess: float
    low: float
    high: float
    p: float


def _test(mask: Bools, loss: Floats, units: Ints, excess: float, alpha: float) -> _Result | None:
    """One-sided test of a slice against the other rows; None where either has fewer than two blocks.

    The error is the larger of that of the two sides and that of rows drawn from all: a slice of nearly equal losses looks surer
    than it is.
    """
    inside, outside = int(mask.sum()), int((~mask).sum())
    if min(np.count_nonzero(np.bincount(units[side])) for side in (mask, ~mask)) < 2:
        return None
    mean, other = float(loss[mask].mean()), float(loss[~mask].mean())
    pull = np.bincount(units, np.where(mask, (loss - mean) / inside, (other - loss) / outside))
    count = np.count_nonzero(np.bincount(units))
    apart = float(np.square(pull).sum()) * count / (count - 1)
    error = math.sqrt(max(apart, float(loss.var()) * (1 / inside + 1 / outside)))
    over = mean - other
    half = _NORMAL.inv_cdf(1 - alpha / 2) * error
    p = 1 - _NORMAL.cdf((over - excess) / error) if error else float(over <= excess)
    return _Result(inside, mean, over, over - half, over + half, p)


@dataclass(frozen=True, slots=True)
class _Losses:
    """The losses that are searched, and what every cell needs of them."""

    loss: Floats
    squares: Floats
    min_rows: int

    def scores(self, codes: Ints, size: int) -> Floats:
        """Excess of each cell over all other rows, in standard errors; minus infinity for cells of too few rows."""
        rows, sums, squares = (np.bincount(codes, weights, size) for weights in (None, self.loss, self.squares))
        others = len(self.loss) - rows
        able = (rows >= self.min_rows) & (others >= self.min_rows)
        rows, others = np.maximum(rows, 1), np.maximum(others, 1)
        mean, other = sums / rows, (self.loss.sum() - sums) / others
        apart = (squares / rows - mean**2) / rows + (self.squares.sum() - squares) / others**2 - other**2 / others
        equal = self.loss.var() * (1 / rows + 1 / others)
        return np.where(able, (mean - other) / np.sqrt(np.maximum(np.maximum(apart, equal), 1e-300)), -np.inf)


def _search(columns: Mapping[str, Array], loss: Floats, min_rows: int, candidates: int) -> list[tuple[Condition, ...]]:
    """The slices that look worst, by the size of their excess in standard errors."""
    losses = _Losses(loss, loss**2, min_rows)
    cut = {name: _conditions(name, column) for name, column in columns.items()}
    alone = {name: losses.scores(codes, len(conditions) + 1)[:-1] for name, (conditions, codes) in cut.items()}
    scored: list[tuple[float, tuple[Condition, ...]]] = []
    for name, (conditions, _) in cut.items():
        scored += [(score, (one,)) for one, score in zip(conditions, alone[name].tolist(), strict=True)]
    for first, second in combinations(cut, 2):
        (ones, codes), (others, more) = cut[first], cut[second]
        shape = len(ones) + 1, len(others) + 1
        scores = losses.scores(codes * shape[1] + more, shape[0] * shape[1]).reshape(shape)[:-1, :-1]
        parents = np.maximum(alone[first][:, None], alone[second][None, :])
        for i, j in np.argwhere((scores > parents) & (scores > 0)).tolist():
            scored.append((float(scores[i, j]), (ones[i], others[j])))
    scored.sort(key=lambda one: -one[0])
    return [conditions for score, conditions in scored[:candidates] if score > 0]


def _conditions(name: str, column: Array) -> tuple[list[Condition], Ints]:
    """The conditions on a column, and the number of the one that each row meets; their number where it meets none."""
    values: list[Any] = column.tolist() if column.dtype == object else []
    if column.dtype == object and any(isinstance(value, str) for value in values):
        return _by_value(name, np.array([value if isinstance(value, str) else None for value in values], dtype=object))
    numbers = np.array([np.nan if value is None else value for value in values]) if column.dtype == object else column.astype(np.float64)
    missing = np.isnan(numbers)
    distinct = np.unique(numbers[~missing])
    if len(distinct) <= BINS:
        conditions: list[Condition] = [Equals(name, bool(value) if column.dtype == np.bool_ else value) for value in distinct.tolist()]
        codes = np.searchsorted(distinct, numbers)
    else:
        cuts = np.unique(np.quantile(numbers[~missing], np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))
        edges = [-np.inf, *cuts.tolist(), np.inf]
        conditions = [Between(name, low, high) for low, high in pairwise(edges)]
        codes = np.searchsorted(cuts, numbers, side="right")
    if missing.any():
        codes, conditions = np.where(missing, len(conditions), codes), [*conditions, Equals(name, None)]
    return conditions, codes


def _by_value(name: str, column: Array) -> tuple[list[Condition], Ints]:
    counts = Counter(column.tolist())
    kept = sorted(counts, key=lambda value: (-counts[value], str(value)))[:VALUES]
    place = {value: code for code, value in enumerate(kept)}
    return [Equals(name, value) for value in kept], np.array([place.get(value, len(kept)) for value in column.tolist()], dtype=np.int64)


def _meets(condition: Condition, column: Array) -> Bools:
    if isinstance(condition, Between):
        numbers = np.array([np.nan if value is None else value for value in column.tolist()], dtype=np.float64)
        return (numbers >= condition.low) & ((numbers < condition.high) | (condition.high == np.inf))
    if condition.value is None:
        return np.array([value is None or value != value for value in column.tolist()], dtype=np.bool_)
    return np.array([value == condition.value for value in column.tolist()], dtype=np.bool_)
