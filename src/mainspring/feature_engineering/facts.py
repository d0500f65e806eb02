"""The facts of one key in one view, and the answers that aggregates give on them.

A `State` holds the newest facts one by one, sorted by which wins (event time, known time, event id), and everything that
no window can reach any more folded into a `Base`. Any order of arrival gives the same state of answers.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mainspring.clock import HOUR
from mainspring.columns import Array
from mainspring.feature_engineering.aggregations import INT_LIMIT, TALLIES, aggregation, merged
from mainspring.feature_engineering.states import Aggregation, Facts, Rank
from mainspring.feature_engineering.sums import FIRST
from mainspring.schema import Status, Type
from mainspring.spec import Aggregate, View

LOOK_BACK = 6 * HOUR
"""How far behind the newest fact of a key a question may be asked and still be answered exactly."""


class Newest(NamedTuple):
    """The fact that wins among folded ones; compares by event time, known time, event id."""

    event_time: int
    known_time: int
    event_id: str | int
    values: tuple[Any, ...]


@dataclass(slots=True)
class Base:
    """Facts older than any window: the states of the plan's lifetime aggregates over them, and the newest."""

    folds: list[Any] = field(default_factory=list)
    newest: Newest | None = None


class EventIds:
    """The ids of a state's facts as MessagePack values one after another, read only when someone must: rarely."""

    def __init__(self, count: int, packed: Callable[[], bytes]) -> None:
        self.count = count
        self._pack = packed

    @cached_property
    def packed(self) -> bytes:
        """The values, joined."""
        return self._pack()

    @cached_property
    def ids(self) -> list[str | int]:
        """One id per fact."""
        decoded: list[str | int] = msgspec.msgpack.decode(b"\xdd" + self.count.to_bytes(4, "big") + self.packed)
        return decoded

    @classmethod
    def of(cls, ids: Sequence[str | int]) -> EventIds:
        """The ids, packed."""
        return cls(len(ids), lambda: b"".join(map(_encode_id, ids)))

    def __add__(self, other: EventIds) -> EventIds:
        return EventIds(self.count + other.count, lambda: self.packed + other.packed)

    def take(self, rows: Array) -> EventIds:
        """The ids of some facts, by their places."""

        def packed() -> bytes:
            ids = self.ids
            return EventIds.of([ids[row] for row in rows.tolist()]).packed

        return EventIds(len(rows), packed)

    def may_share(self, other: EventIds) -> bool:
        """Whether an id of ``other`` may be among these; False is certain."""
        if other.count > _FEW:
            return not set(self.ids).isdisjoint(other.ids)
        held = self.packed
        return any(_encode_id(one) in held for one in other.ids)


_FEW = 64
_encode_id = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class State:
    """Facts of one key: arrays of shape ``(n,)`` in winning order, and the base under them.

    ``columns`` are float64 with NaN for null, int64, or object arrays; ``late`` says that a fact was known after it happened,
    ``repeated`` that an event id occurs more than once: then visibility must be looked at fact by fact.
    """

    event_times: Array
    known_times: Array
    event_ids: EventIds
    columns: list[Array]
    base: Base
    late: bool = False
    repeated: bool = False

    def __len__(self) -> int:
        return len(self.event_times)


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """What a view must keep and compute, worked out once from its aggregates."""

    view: View
    aggregates: tuple[Aggregate, ...]
    folds: tuple[Aggregation, ...] = field(init=False)
    lifetimes: tuple[int, ...] = field(init=False)
    columns: tuple[str, ...] = field(init=False)
    types: tuple[Type, ...] = field(init=False)
    widths: tuple[int | None, ...] = field(init=False)
    retention: int = field(init=False)
    inclusive: bool = field(init=False)

    def __post_init__(self) -> None:
        columns = tuple(dict.fromkeys(column for aggregate in self.aggregates for column in aggregate.columns))
        lifetimes = [i for i, one in enumerate(self.aggregates) if one.window is None and not one.is_newest]
        windows = [aggregate.window_us for aggregate in self.aggregates if aggregate.window_us is not None]
        values: dict[str, Any] = {
            "folds": tuple(map(aggregation, self.aggregates)),
            "lifetimes": tuple(lifetimes),
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
        return State(times, times, EventIds.of([]), columns, Base([None] * len(self.lifetimes)))

    def insert(self, state: State, added: State) -> State:
        """The state with more facts, in any order; repeated facts count once, and what no window reaches is folded."""
        fresh = _sorted(added)
        if len(state) and (fresh.event_times[0] <= state.event_times[-1] or state.event_ids.may_share(fresh.event_ids)):
            return self._fold(_sorted(_joined(state, fresh)))
        return self._fold(_joined(state, fresh))

    @property
    def attributes(self) -> bool:
        """Whether every aggregate is a column of the newest fact."""
        return all(aggregate.is_newest for aggregate in self.aggregates)

    def read(self, state: State, as_of: int, *, known_as_of: bool = True) -> list[tuple[Any, Status]]:
        """Value and status of every aggregate at ``as_of``, as known then, or with ``known_as_of=False`` as known by now."""
        known_until = as_of if known_as_of else INT_LIMIT
        if state.repeated or (state.late and int(state.known_times.max()) > known_until):
            state = _visible(state, as_of, self.inclusive, known_until)
        times = state.event_times
        end = bisect_right(times, as_of) if self.inclusive else bisect_left(times, as_of)
        starts = {width: 0 if width is None else bisect_left(times, as_of - width) for width in self.widths}
        return [
            self._newest(aggregate, state, as_of, end) if aggregate.is_newest
            else self._answer(i, state, as_of, starts[aggregate.window_us], end)
            for i, aggregate in enumerate(self.aggregates)
        ]  # fmt: skip

    def settled(self, state: State) -> int:
        """From which instant on the last fact is the newest of all; never where an event id is repeated. A state holds a fact."""
        if state.repeated:
            return INT_LIMIT - 1
        return max(int(state.event_times[-1]) + (not self.inclusive), int(state.known_times.max()))

    def _answer(self, i: int, state: State, as_of: int, start: int, end: int) -> tuple[Any, Status]:
        aggregate, fold = self.aggregates[i], self.folds[i]
        plain = aggregate.where is None and aggregate.by is None and aggregate.window is not None
        if plain and aggregate.function == "count":
            return end - start, Status.PRESENT
        value: Any = None
        if aggregate.column is not None and aggregate.where is None and aggregate.by is None:
            column = self._column(state, aggregate.column)[start:end]
            base = None if plain else state.base.folds[self.lifetimes.index(i)]
            value = _quick(aggregate.function, column) if plain else _lifetime(aggregate.function, column, base)
        if value is None:
            held = self._state(i, state, start, end)
            if aggregate.window is None:
                held = merged(fold, state.base.folds[self.lifetimes.index(i)], held)
            value = fold.result(held, as_of)
        return value, Status.NULL if value is None else Status.PRESENT

    def _state(self, i: int, state: State, start: int, end: int) -> Any:
        """The state of an aggregate over the facts from ``start`` to ``end``; None where none of them counts."""
        aggregate = self.aggregates[i]
        keep = np.ones(end - start, dtype=np.bool_)
        if aggregate.where is not None:
            keep &= np.asarray(self._column(state, aggregate.where)[start:end] == True, dtype=np.bool_)  # noqa: E712
        for column in (aggregate.column, aggregate.by):
            if column is not None:
                keep &= present(self._column(state, column)[start:end])
        if not keep.any():
            return None
        rows = np.flatnonzero(keep) + start
        times = state.event_times[rows]
        values = times if aggregate.column is None else typed(self._column(state, aggregate.column)[rows])
        groups = None if aggregate.by is None else self._column(state, aggregate.by)[rows]
        return self.folds[i].fold(Facts(times, values, groups, lambda: _ranks(state, rows)))

    def _column(self, state: State, name: str) -> Array:
        return state.columns[self.columns.index(name)]

    def _newest(self, aggregate: Aggregate, state: State, as_of: int, end: int) -> tuple[Any, Status]:
        index = self.columns.index(aggregate.column or "")
        newest = state.base.newest
        if newest is not None and not (newest.event_time < as_of or (self.inclusive and newest.event_time == as_of)):
            newest = None
        if end and (newest is None or newest[:3] < _ranks(state, [end - 1])[0]):
            event_time, value = int(state.event_times[end - 1]), state.columns[index][end - 1]
        elif newest is not None:
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
        old = _take(state, np.arange(cut))
        if state.late or state.repeated:
            known_until = int(max(old.known_times.max(), horizon))
            old = _visible(old, known_until, False, known_until)
        folds = [
            merged(self.folds[i], below, self._state(i, old, 0, len(old)))
            for i, below in zip(self.lifetimes, state.base.folds, strict=True)
        ]
        last = Newest(int(old.event_times[-1]), int(old.known_times[-1]), old.event_ids.ids[-1], tuple(_plain(c[-1]) for c in old.columns))
        newest = last if state.base.newest is None or state.base.newest[:3] < last[:3] else state.base.newest
        kept = _take(state, np.arange(cut, len(state)))
        kept.base = Base(folds, newest)
        kept.late, kept.repeated = state.late and _is_late(kept), state.repeated and _is_repeated(kept)
        return kept


def storable(column: Array, type_: Type) -> Array:
    """A column as a state keeps it: float64, or objects with None for null."""
    return column if type_ == Type.FLOAT else column.astype(object)


def _quick(function: str, column: Array) -> float | None:
    """A tally of floats among which there is no null; None for anything else."""
    if function not in TALLIES or column.dtype != np.float64 or not len(column):
        return None
    ufunc = np.minimum if function == "min" else np.maximum if function == "max" else np.add
    whole: float = ufunc.reduceat(column, FIRST)[0].item()
    if whole != whole:
        return None
    return whole / len(column) if function == "mean" else whole


def _lifetime(function: str, column: Array, base: Any) -> float | None:
    """What the exact `Tally` of a base and of floats among which there is no null results in, rounded once; None for anything else."""
    if function not in ("sum", "mean") or column.dtype != np.float64 or not len(column):
        return None
    count, terms = (0, ()) if base is None else base[:2]
    try:
        whole = math.fsum((*terms, *column.tolist()))
    except (OverflowError, ValueError):
        return None
    if not math.isfinite(whole):
        return None
    return whole / (count + len(column)) if function == "mean" else whole


def present(column: Array) -> Array:
    """Where a column is not null, of the same shape."""
    if column.dtype == object:
        return np.array([value is not None for value in column], dtype=np.bool_)
    present: Array = column == column
    return present


def typed(column: Array) -> Array:
    """Values without nulls in their own dtype: whole numbers and truths come as objects."""
    if column.dtype != object or not len(column) or isinstance(column[0], str):
        return column
    return column.astype(np.bool_ if isinstance(column[0], bool) else np.int64)


def _ranks(state: State, rows: Sequence[int] | Array) -> list[Rank]:
    ids = state.event_ids.ids
    return [(int(state.event_times[row]), int(state.known_times[row]), ids[row]) for row in rows]


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
        state.late or added.late,
        state.repeated or added.repeated,
    )


def _sorted(state: State) -> State:
    """The facts in winning order, without exact repetitions."""
    state.late, state.repeated = _is_late(state), _is_repeated(state)
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


def _visible(state: State, as_of: int, inclusive: bool, known_until: int) -> State:
    """The facts that happened by ``as_of`` and were known by ``known_until``, each event id once with its newest known version."""
    seen = (state.known_times <= known_until) & (state.event_times <= as_of if inclusive else state.event_times < as_of)
    if not state.repeated:
        return _take(state, np.flatnonzero(seen))
    ids = state.event_ids.ids
    winners: dict[str | int, int] = {}
    for row in np.flatnonzero(seen).tolist():
        event_id = ids[row]
        held = winners.get(event_id)
        if held is None or state.known_times[row] >= state.known_times[held]:
            winners[event_id] = row
    return _take(state, np.array(sorted(winners.values()), dtype=np.int64))


def _is_late(state: State) -> bool:
    return bool((state.known_times > state.event_times).any())


def _is_repeated(state: State) -> bool:
    return len(state) > 1 and len(set(state.event_ids.ids)) != len(state)


def _take(state: State, rows: Array) -> State:
    columns = [column[rows] for column in state.columns]
    ids = state.event_ids.take(rows)
    return State(state.event_times[rows], state.known_times[rows], ids, columns, state.base, state.late, state.repeated)
