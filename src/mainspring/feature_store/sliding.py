"""Windows over many keys at once, in NumPy: where each question's facts begin and end, then one reduction over all of them.

Facts are sorted by key and rank, questions by key and instant; every window is then a slice, and ``reduceat`` folds each slice
by itself, adding in the same order as a read of one key does: the results are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from mainspring.clock import SECOND
from mainspring.columns import Array, to_array
from mainspring.feature_engineering.aggregations import INT_LIMIT
from mainspring.feature_engineering.facts import present, typed
from mainspring.feature_engineering.sums import expansion
from mainspring.schema import Type
from mainspring.spec import Aggregate

Longs = npt.NDArray[np.int64]
SLIDING = ("count", "rate", "sum", "mean", "min", "max", "time_since_last")
_FLOAT_LIMIT = 2**53
"""Whole sums below it are divided as Python divides them."""


def slides(aggregate: Aggregate) -> bool:
    """Whether an aggregate is answered here."""
    return aggregate.function in SLIDING and aggregate.by is None


@dataclass(slots=True)
class Slides:
    """Questions about facts, both of many keys, numbered 0 and up; a question with key -1 has no facts.

    ``groups`` and ``times`` of the facts have shape ``(n,)``, ``asked_groups`` and ``asked_times`` of the questions ``(m,)``;
    facts of one key and instant must come in winning order. ``inclusive`` counts a fact at the question's instant.
    """

    groups: Longs
    times: Longs
    asked_groups: Longs
    asked_times: Longs
    inclusive: bool
    _order: Longs = field(init=False)
    _asked_by_time: Longs = field(init=False)
    _asked_order: Longs = field(init=False)
    _by_time: Longs = field(init=False)
    _places: Longs = field(init=False)
    _ends: Longs = field(init=False)
    _starts: dict[int | None, Longs] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        by_time = np.argsort(self.times, kind="stable") if (np.diff(self.times) < 0).any() else np.arange(len(self.times))
        self._by_time = self.times[by_time]
        within = np.argsort(self.groups[by_time], kind="stable")
        self._order = by_time[within]
        self._places = self._place(self.groups[self._order], within)
        self._asked_by_time = np.argsort(self.asked_times, kind="stable")
        self._asked_order = self._asked_by_time[np.argsort(self.asked_groups[self._asked_by_time], kind="stable")]
        self._ends = self._find(0, "right" if self.inclusive else "left")

    @property
    def tied(self) -> bool:
        """Whether two facts of one key happened at one instant."""
        times, groups = self.times[self._order], self.groups[self._order]
        return bool(((times[1:] == times[:-1]) & (groups[1:] == groups[:-1])).any())

    def answer(self, aggregate: Aggregate, column: Array | None, where: Array | None) -> Array | None:
        """The aggregate of each question, of shape ``(m,)``; None where whole sums may grow too large and another way is needed."""
        starts, ends = self._start(aggregate.window_us), self._ends
        order, asked = self._order, self.asked_times[self._asked_order]
        columns = [None if one is None else one[order] for one in (column, where)]
        answers = fold(aggregate, self.times[order], columns[0], columns[1], asked, starts, ends)
        return None if answers is None else self._in_order(answers)

    def _place(self, groups: Longs, positions: Longs) -> Longs:
        return groups * (len(self.times) + 1) + positions

    def _find(self, back: int, side: Literal["left", "right"]) -> Longs:
        """Per question, the first fact of its key at or after its instant less ``back``; looked up in order of time, then of key."""
        positions = np.empty_like(self.asked_times)
        by_time = self._asked_by_time
        positions[by_time] = self._by_time.searchsorted(self.asked_times[by_time] - back, side)
        groups = self.asked_groups[self._asked_order]
        return np.where(groups < 0, 0, self._places.searchsorted(self._place(groups, positions[self._asked_order]), "left"))

    def _start(self, width: int | None) -> Longs:
        if width not in self._starts:
            groups = self.asked_groups[self._asked_order]
            first = np.where(groups < 0, 0, self._places.searchsorted(self._place(groups, np.zeros(len(groups), dtype=np.int64)), "left"))
            self._starts[width] = first if width is None else np.minimum(self._find(width, "left"), self._ends)
        return self._starts[width]

    def _in_order(self, answers: Array) -> Array:
        result = np.empty_like(answers)
        result[self._asked_order] = answers
        return result


def fold(
    aggregate: Aggregate, times: Longs, column: Array | None, where: Array | None, asked: Longs, starts: Longs, ends: Longs
) -> Array | None:
    """An aggregate over slices of facts, of shape ``(m,)`` as are ``asked``, ``starts`` and ``ends``; None as in `Slides.answer`.

    ``times``, ``column`` and ``where`` have shape ``(n,)``.
    """
    kept = np.ones(len(times), dtype=np.bool_) if column is None else present(column)
    if where is not None:
        kept = kept & np.asarray(where == True, dtype=np.bool_)  # noqa: E712
    if not kept.all():
        before = np.concatenate([[0], np.cumsum(kept)])
        starts, ends, times = before[starts], before[ends], times[kept]
        column = None if column is None else column[kept]
    counts = ends - starts
    if aggregate.function in ("count", "rate"):
        return counts if aggregate.function == "count" else counts * SECOND / (aggregate.window_us or 1)
    if aggregate.function == "time_since_last":
        since = (asked - np.append(times, 0)[ends - 1]) / SECOND
        return np.where(counts > 0, since, np.nan)
    values = typed(column) if column is not None else times
    exact = aggregate.window is None and values.dtype == np.float64 and aggregate.function in ("sum", "mean")
    folded = _folded(aggregate.function, values, starts, ends, exact)
    return None if folded is None else _nullable(folded, counts > 0, aggregate.type)


def _folded(function: str, values: Array, starts: Longs, ends: Longs, exact: bool) -> Array | None:
    if values.dtype == np.bool_:
        values = values.astype(np.int64)
    counts = ends - starts
    if exact:
        sums = _running(values.tolist(), starts.tolist(), ends.tolist())
        return sums / np.maximum(counts, 1) if function == "mean" else sums
    adds_whole = values.dtype == np.int64 and function in ("sum", "mean") and len(values) > 0 and len(counts) > 0
    limit = _FLOAT_LIMIT if function == "mean" else INT_LIMIT
    if adds_whole and float(np.abs(values.astype(np.float64)).max()) * int(counts.max()) >= limit:
        return None
    ufunc = {"min": np.minimum, "max": np.maximum}.get(function, np.add)
    edges = np.empty(2 * len(starts), dtype=np.int64)
    edges[::2], edges[1::2] = starts, ends
    sums = ufunc.reduceat(np.concatenate((values, np.zeros(1, values.dtype))), edges)[::2] if len(edges) else values[:0]
    return sums / np.maximum(counts, 1) if function == "mean" else sums


def _running(values: Sequence[float], starts: Sequence[int], ends: Sequence[int]) -> Array:
    """Sums of slices, correctly rounded; of slices that begin together the longer come later."""
    sums, terms, first, place = np.zeros(len(starts)), [0.0], -1, 0
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if start != first:
            terms, first, place = [0.0], start, start
        if end > place:
            terms, place = expansion([*terms, *values[place:end]]), end
        sums[i] = terms[0]
    return sums


def _nullable(values: Array, some: npt.NDArray[np.bool_], type_: Type) -> Array:
    if type_ == Type.FLOAT:
        return np.where(some, values, np.nan).astype(np.float64, copy=False)
    if some.all():
        return values
    return to_array(_nulled(values.tolist(), some.tolist()), type_)


def _nulled(values: Sequence[int], some: Sequence[bool]) -> list[int | None]:
    return [value if is_there else None for value, is_there in zip(values, some, strict=True)]
