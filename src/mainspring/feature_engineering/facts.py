"""The facts of one key in one view, and the answers that SEMANTICS gives on them.

A `State` holds the newest facts one by one, sorted by which wins (event time, known time, event id), and everything that
no window can reach any more folded into a `Base`. Any order of arrival gives the same state of answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mainspring.clock import HOUR
from mainspring.columns import Array
from mainspring.schema import Status, Type
from mainspring.spec import Aggregate, View

LOOK_BACK = 6 * HOUR
"""How far behind the newest fact of a key a question may be asked and still be answered exactly."""


class Tally(NamedTuple):
    """Mergeable fold of one column's non-null values: how many, their sum, least and greatest."""

    n: int = 0
    total: Any = 0
    low: Any = None
    high: Any = None

    def merge(self, other: Tally) -> Tally:
        """The fold of both."""
        if not self.n or not other.n:
            return self if self.n else other
        return Tally(self.n + other.n, self.total + other.total, min(self.low, other.low), max(self.high, other.high))

    def result(self, function: str) -> Any:
        """Sum, mean, min or max; None when there was no value."""
        if not self.n:
            return None
        return {"sum": self.total, "mean": self.total / self.n, "min": self.low, "max": self.high}[function]


class Newest(NamedTuple):
    """The fact that wins among folded ones; compares by event time, known time, event id."""

    event_time: int
    known_time: int
    event_id: str | int
    values: tuple[Any, ...]


@dataclass(slots=True)
class Base:
    """Facts older than any window, folded."""

    count: int = 0
    tallies: list[Tally] = field(default_factory=list)
    newest: Newest | None = None


class EventIds:
    """The ids of a state's facts as MessagePack values one after another, read only when someone must: rarely."""

    def __init__(self, count: int, packed: bytes | memoryview) -> None:
        self.count = count
        self.packed = packed

    @classmethod
    def of(cls, ids: Sequence[str | int]) -> EventIds:
        """The ids, packed."""
        return cls(len(ids), b"".join(map(_encode_id, ids)))

    @property
    def ids(self) -> list[str | int]:
        """One id per fact."""
        header = b"\xdd" + self.count.to_bytes(4, "big")
        decoded: list[str | int] = msgspec.msgpack.decode(header + bytes(self.packed))
        return decoded

    def __add__(self, other: EventIds) -> EventIds:
        return EventIds(self.count + other.count, bytes(self.packed) + bytes(other.packed))

    def may_share(self, other: EventIds) -> bool:
        """Whether an id of ``other`` may be among these; False is certain."""
        if other.count > _FEW:
            return not set(self.ids).isdisjoint(other.ids)
        held = bytes(self.packed)
        return any(_encode_id(one) in held for one in other.ids)


_FEW = 64
_encode_id = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class State:
    """Facts of one key: arrays of shape ``(n,)`` in winning order, and the base under them.

    ``columns`` are float64 with NaN for null, int64, or object arrays; ``irregular`` says that a fact was known after it
    happened or that an event id occurs more than once, so that visibility must be looked at fact by fact.
    """

    event_times: Array
    known_times: Array
    event_ids: EventIds
    columns: list[Array]
    base: Base
    irregular: bool = False

    def __len__(self) -> int:
        return len(self.event_times)


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """What a view must keep and compute, worked out once from its aggregates."""

    view: View
    aggregates: tuple[Aggregate, ...]
    columns: tuple[str, ...] = field(init=False)
    types: tuple[Type, ...] = field(init=False)
    widths: tuple[int | None, ...] = field(init=False)
    retention: int = field(init=False)
    inclusive: bool = field(init=False)

    def __post_init__(self) -> None:
        columns = tuple(dict.fromkeys(aggregate.column for aggregate in self.aggregates if aggregate.column is not None))
        windows = [aggregate.window_us for aggregate in self.aggregates if aggregate.window_us is not None]
        values: dict[str, Any] = {
            "columns": columns,
            "types": tuple(self.view.source.columns[column].type for column in columns),
            "widths": tuple(dict.fromkeys(aggregate.window_us for aggregate in self.aggregates)),
            "retention": max(windows, default=0) + LOOK_BACK,
            "inclusive": self.view.source.kind == "table",
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def empty(self) -> State:
        """The state of a key without facts."""
        times = np.empty(0, dtype=np.int64)
        columns = [np.empty(0, dtype=np.float64 if type_ == Type.FLOAT else object) for type_ in self.types]
        return State(times, times, EventIds(0, b""), columns, Base(tallies=[Tally() for _ in self.columns]))

    def insert(self, state: State, added: State) -> State:
        """The state with more facts, in any order; repeated facts count once, and what no window reaches is folded."""
        fresh = _sorted(added)
        if len(state) and (fresh.event_times[0] <= state.event_times[-1] or state.event_ids.may_share(fresh.event_ids)):
            return self._fold(_sorted(_joined(state, fresh)))
        return self._fold(_joined(state, fresh))

    def read(self, state: State, as_of: int) -> list[tuple[Any, Status]]:
        """Value and status of every aggregate at ``as_of``, as known then."""
        if state.irregular:
            state = _visible(state, as_of, self.inclusive)
        times = state.event_times
        end = int(times.searchsorted(as_of, "right" if self.inclusive else "left"))
        starts = {width: 0 if width is None else int(times.searchsorted(as_of - width, "left")) for width in self.widths}
        return [self._answer(aggregate, state, as_of, starts[aggregate.window_us], end) for aggregate in self.aggregates]

    def _answer(self, aggregate: Aggregate, state: State, as_of: int, start: int, end: int) -> tuple[Any, Status]:
        if aggregate.function == "last":
            return self._last(aggregate, state, as_of, end)
        if aggregate.column is None:
            return end - start + (state.base.count if aggregate.window is None else 0), Status.PRESENT
        index = self.columns.index(aggregate.column)
        function = aggregate.function
        if aggregate.window is None:
            value = tally(state.columns[index][start:end]).merge(state.base.tallies[index]).result(function)
        else:
            value = _reduce(state.columns[index][start:end], function)
        return value, Status.NULL if value is None else Status.PRESENT

    def _last(self, aggregate: Aggregate, state: State, as_of: int, end: int) -> tuple[Any, Status]:
        index = self.columns.index(aggregate.column or "")
        newest = state.base.newest
        if end:
            event_time, value = int(state.event_times[end - 1]), state.columns[index][end - 1]
        elif newest is not None and (newest.event_time < as_of or (self.inclusive and newest.event_time == as_of)):
            event_time, value = newest.event_time, newest.values[index]
        else:
            return None, Status.MISSING
        max_age = aggregate.max_age_us
        if max_age is not None and event_time < as_of - max_age:
            return None, Status.EXPIRED
        value = value.item() if isinstance(value, np.generic) else value
        return (None, Status.NULL) if value is None or value != value else (value, Status.PRESENT)

    def _fold(self, state: State) -> State:
        """Move to the base what no window can reach any more, once that is a quarter of the state."""
        horizon = int(state.event_times[-1]) - self.retention
        cut = int(state.event_times.searchsorted(horizon, "left"))
        if cut * 4 < len(state):
            return state
        ids = state.event_ids.ids
        old = State(state.event_times[:cut], state.known_times[:cut], EventIds.of(ids[:cut]), [c[:cut] for c in state.columns], state.base)
        if state.irregular:
            old = _visible(old, int(max(old.known_times.max(), horizon)), False)
        tallies = [tally(column).merge(below) for column, below in zip(old.columns, state.base.tallies, strict=True)]
        last = Newest(int(old.event_times[-1]), int(old.known_times[-1]), old.event_ids.ids[-1], tuple(_plain(c[-1]) for c in old.columns))
        newest = last if state.base.newest is None or state.base.newest[:3] < last[:3] else state.base.newest
        rest = [column[cut:] for column in state.columns]
        base = Base(state.base.count + len(old), tallies, newest)
        kept = State(state.event_times[cut:], state.known_times[cut:], EventIds.of(ids[cut:]), rest, base)
        kept.irregular = state.irregular and _is_irregular(kept)
        return kept


def tally(column: Array) -> Tally:
    """The fold of a column's non-null values."""
    values = _non_null(column)
    if not len(values) or isinstance(values[0], str):
        return Tally()
    if values.dtype == object:
        values = values.astype(np.int64)
    return Tally(len(values), values.sum().item(), values.min().item(), values.max().item())


def _reduce(column: Array, function: str) -> Any:
    if function == "mean" and column.dtype == np.float64 and len(column):
        total = np.add.reduce(column).item()
        if total == total:
            return total / len(column)
    values = _non_null(column)
    if not len(values):
        return None
    if values.dtype == object:
        values = values.astype(np.int64)
    if function == "mean":
        return values.sum().item() / len(values)
    result = values.sum() if function == "sum" else values.min() if function == "min" else values.max()
    return result.item()


def _non_null(column: Array) -> Array:
    if column.dtype == np.float64:
        present = column == column
        kept: Array = column if present.all() else column[present]
        return kept
    if column.dtype == object:
        held: Array = column[np.array([value is not None for value in column], dtype=bool)]
        return held
    return column


def _plain(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain is None or plain != plain else plain


def _joined(state: State, added: State) -> State:
    return State(
        np.concatenate([state.event_times, added.event_times]),
        np.concatenate([state.known_times, added.known_times]),
        state.event_ids + added.event_ids,
        [np.concatenate(pair) for pair in zip(state.columns, added.columns, strict=True)],
        state.base,
        state.irregular or added.irregular,
    )


def _sorted(state: State) -> State:
    """The facts in winning order, without exact repetitions."""
    state.irregular = _is_irregular(state)
    if len(state) < 2:
        return state
    times, known, ids = state.event_times, state.known_times, state.event_ids.ids
    order = np.lexsort((known, times))
    tied = (np.diff(times[order]) == 0) & (np.diff(known[order]) == 0)
    if tied.any():
        order = np.array(sorted(range(len(times)), key=lambda row: (times[row], known[row], ids[row])))
    if len(set(ids)) != len(ids):
        first = {(ids[row], int(times[row]), int(known[row])): row for row in reversed(order.tolist())}
        order = np.array([row for row in order.tolist() if first[ids[row], int(times[row]), int(known[row])] == row])
    return _take(state, order)


def _visible(state: State, as_of: int, inclusive: bool) -> State:
    """The facts that happened and were known by ``as_of``, each event id once with its newest known version."""
    seen = (state.known_times <= as_of) & (state.event_times <= as_of if inclusive else state.event_times < as_of)
    ids = state.event_ids.ids
    winners: dict[str | int, int] = {}
    for row in np.flatnonzero(seen).tolist():
        event_id = ids[row]
        held = winners.get(event_id)
        if held is None or state.known_times[row] >= state.known_times[held]:
            winners[event_id] = row
    return _take(state, np.array(sorted(winners.values()), dtype=np.int64))


def _is_irregular(state: State) -> bool:
    if (state.known_times > state.event_times).any():
        return True
    return len(state) > 1 and len(set(state.event_ids.ids)) != len(state)


def _take(state: State, rows: Array) -> State:
    columns = [column[rows] for column in state.columns]
    ids = state.event_ids.ids
    taken = EventIds.of([ids[row] for row in rows.tolist()])
    return State(state.event_times[rows], state.known_times[rows], taken, columns, state.base, state.irregular)
