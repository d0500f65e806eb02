"""The answers of one view for many keys at once: newest values from the heads of rows, windows as slices over all facts together.

They are the same, to the bit, as row by row. Rows that need more care (late or repeated facts, questions about the past,
folded lifetimes, damage) are left to whoever answers row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.feature_engineering.facts import ViewPlan, present
from mainspring.feature_store.packed_rows import PackedRows
from mainspring.feature_store.packing import FOLDED, LATE, REPEATED, RowFormat
from mainspring.feature_store.sliding import fold, slides
from mainspring.schema import Status, Type
from mainspring.spec.aggregate import COUNTING

Longs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Rows = Sequence[bytes | None]
_LARGEST = 2.0**62


@dataclass(slots=True)
class Answers:
    """Aggregates of ``n`` rows: values as columns of shape ``(n,)``, statuses of shape ``(n, aggregates)``, and which rows have them."""

    values: list[Array]
    statuses: npt.NDArray[np.uint8]
    answered: Mask


@dataclass(slots=True)
class Batch:
    """The first and second rows of one view, None for keys never seen, and the instants of their questions, all of length ``n``."""

    plan: ViewPlan
    form: RowFormat
    rows: Rows
    older: Rows
    as_of: Longs
    _values: dict[int, Array] = field(init=False, default_factory=dict)

    def answers(self) -> Answers | None:
        """What can be answered together; None where nothing can."""
        aggregates = self.plan.aggregates
        if not all(aggregate.is_newest or slides(aggregate) for aggregate in aggregates):
            return None
        statuses = np.zeros((len(self.rows), len(aggregates)), dtype=np.uint8)
        answered = np.ones(len(self.rows), dtype=np.bool_)
        packed = PackedRows(self.form, self.rows)
        for part, wanted in ((self._newest, any(one.is_newest for one in aggregates)), (self._windows, not self.plan.attributes)):
            if wanted:
                found = part(packed, statuses)
                if found is None:
                    return None
                answered &= found
        unknown = [i for i, row in enumerate(self.rows) if row is None]
        if unknown:
            answered[unknown], statuses[unknown] = True, Status.UNKNOWN_KEY
        return Answers([self._values[i] for i in range(len(aggregates))], statuses, answered)

    def _newest(self, packed: PackedRows, statuses: npt.NDArray[np.uint8]) -> Mask:
        """Fill in the newest values and their statuses; where the head of a row knows them."""
        facts = packed.heads["last"]
        columns, some_null = self.form.columns(facts, packed.texts()), bool(facts["nulls"].any())
        for i, aggregate in enumerate(self.plan.aggregates):
            if not aggregate.is_newest:
                continue
            column = columns[self.plan.columns.index(aggregate.column or "")]
            if some_null or aggregate.type == Type.STR:
                statuses[~present(column), i] = Status.NULL
            if aggregate.max_age_us is not None:
                expired = facts["t"] < self.as_of - aggregate.max_age_us
                if expired.any():
                    statuses[expired, i], column = Status.EXPIRED, _without(column, expired)
            self._values[i] = column
        return packed.intact & (packed.heads["settled"] <= self.as_of)

    def _windows(self, packed: PackedRows, statuses: npt.NDArray[np.uint8]) -> Mask | None:
        """Fill in the windows and their statuses; where all facts of a row were known by then, and none that counts is folded."""
        plain, records, groups = packed.facts(packed.whole() & self._is_plain(packed.heads), self.older)
        slices = _Slices(records["t"], groups, self.as_of, self.plan.inclusive)
        if slices.span * (len(self.rows) + 1.0) > _LARGEST:
            return None
        used = {name for one in self.plan.aggregates if not one.is_newest for name in one.columns}
        columns = {name: np.ascontiguousarray(self.form.column(records, self.plan.columns.index(name))) for name in used}
        for i, aggregate in enumerate(self.plan.aggregates):
            if aggregate.is_newest:
                continue
            starts, ends = slices.between(aggregate.window_us)
            column, where = (columns[name] if name else None for name in (aggregate.column, aggregate.where))
            answer = fold(aggregate, slices.times, column, where, self.as_of, starts, ends)
            if answer is None:
                return None
            if aggregate.function not in COUNTING:
                statuses[~present(answer), i] = Status.NULL
            self._values[i] = answer
        return plain

    def _is_plain(self, heads: Array) -> Mask:
        care, flags = REPEATED | (FOLDED if self.plan.lifetimes else 0), heads["flags"]
        plain: Mask = (flags & care == 0) & ((flags & LATE == 0) | (heads["settled"] <= self.as_of))
        return plain


class _Slices:
    """Where the windows of questions, one a group, begin and end among facts that are sorted by group and time."""

    def __init__(self, times: Longs, groups: Longs, as_of: Longs, inclusive: bool) -> None:
        self.times = np.ascontiguousarray(times)
        self._first = int(times.min()) if len(times) else 0
        self.span = int(times.max()) - self._first + 2 if len(times) else 2
        self._places = groups * self.span + (self.times - self._first)
        self._own = np.arange(len(as_of)) * self.span
        self._as_of = as_of
        self._ends = self._find(as_of + inclusive)
        self._found: dict[int | None, Longs] = {}

    def between(self, width: int | None) -> tuple[Longs, Longs]:
        """The first fact of each question's window, and the one behind its last."""
        if width not in self._found:
            starts = self._places.searchsorted(self._own) if width is None else self._find(self._as_of - width)
            self._found[width] = np.minimum(starts, self._ends)
        return self._found[width], self._ends

    def _find(self, instants: Longs) -> Longs:
        return self._places.searchsorted(self._own + np.clip(instants - self._first, 0, self.span - 1))


def _without(column: Array, chosen: Mask) -> Array:
    column = column.astype(np.float64 if column.dtype == np.float64 else object)
    column[chosen] = np.nan if column.dtype == np.float64 else None
    return column
