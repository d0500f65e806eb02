"""Online features: one packed row per (view, key), all views of a request in one round trip, updated from the event log."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mainspring.columns import Array, to_array
from mainspring.errors import StorageError
from mainspring.feature_engineering.facts import ViewPlan
from mainspring.feature_store.packing import RowFormat, pack_key, unpack_key
from mainspring.schema import Status, Type
from mainspring.spec import System, View
from mainspring.storage.event_log import EventLog, Frame
from mainspring.storage.key_value import KeyValue

_OFFSET = b"\x00offset:"
_PREFIX = 8
_ALL = 2**63 - 1
_log = logging.getLogger(__name__)


class Served(NamedTuple):
    """Aggregates of one request in the order of `OnlineStore.names`: values (None for null) and statuses."""

    values: list[Any]
    statuses: list[Status]
    unknown: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class _Online:
    plan: ViewPlan
    rows: RowFormat
    prefix: bytes
    nothing: tuple[Any, ...]
    defaults: tuple[Any, ...]


class OnlineStore:
    """The online side of a System's views over a key-value store.

    The store is derived state: `apply` folds frames of the event log into it and moves the views' offsets in the same
    transaction, so that every event counts exactly once whatever is killed when, and by however many processes it runs. A view
    that is new, or declared otherwise, begins at the start of the log, while the others go on.
    """

    def __init__(self, system: System, store: KeyValue, *, sources: Collection[str] | None = None) -> None:
        """``sources`` names those whose views are meant; all without it."""
        self._store = store
        views = {view: aggregates for view, aggregates in system.views.items() if sources is None or view.source.name in sources}
        self._views = [_online(ViewPlan(view, aggregates)) for view, aggregates in views.items()]
        self.names = tuple(aggregate.name for online in self._views for aggregate in online.plan.aggregates)
        self._offset_keys = [_OFFSET + online.prefix for online in self._views]
        self._types = [aggregate.type for online in self._views for aggregate in online.plan.aggregates]

    @property
    def offset(self) -> int:
        """How much of the event log has been applied to every view: the number of the first event that has not."""
        held = self._store.get_many(self._offset_keys)
        return min((int.from_bytes(one or b"", "little") for one in held), default=_ALL)

    def read(self, request: Mapping[str, Any], as_of: int, deadline_us: int | None = None) -> Served:
        """Every aggregate for one request, as known at ``as_of``.

        A key that was never seen has status ``unknown_key``. When the store fails, or answers after ``deadline_us``
        microseconds, every aggregate takes its declared default with status ``unavailable``; where one row is damaged, those
        of its view do.
        """
        return self.read_many([request], [as_of], deadline_us)[0]

    def read_many(self, requests: Sequence[Mapping[str, Any]], as_of: Sequence[int], deadline_us: int | None = None) -> list[Served]:
        """What `read` gives for each request, in one round trip."""
        started = time.perf_counter_ns()
        keys = [online.prefix + pack_key([request[name] for name in online.plan.view.on]) for request in requests for online in self._views]
        try:
            rows = self._store.get_many(keys)
        except StorageError:
            rows = None
        if rows is None or (deadline_us is not None and time.perf_counter_ns() - started > deadline_us * 1_000):
            defaults = [value for online in self._views for value in online.defaults]
            return [Served(list(defaults), [Status.UNAVAILABLE] * len(defaults), ()) for _ in requests]
        width = len(self._views)
        return [self._served(rows[i * width : (i + 1) * width], instant) for i, instant in enumerate(as_of)]

    def columns(self, served: Sequence[Served]) -> dict[str, Array]:
        """The answers of `read_many` as columns of shape ``(len(served),)``."""
        columns = zip(self.names, self._types, strict=True)
        return {name: to_array([one.values[i] for one in served], type_) for i, (name, type_) in enumerate(columns)}

    def _served(self, rows: Sequence[bytes | None], as_of: int) -> Served:
        values: list[Any] = []
        statuses: list[Status] = []
        unknown = []
        for online, row in zip(self._views, rows, strict=True):
            if row is None:
                unknown.append(online.plan.view)
                values += online.nothing
                statuses += [Status.UNKNOWN_KEY] * len(online.nothing)
                continue
            try:
                state = online.rows.unpack(row)
            except StorageError as error:
                _log.error("View '%s': %s", online.plan.view.name, error)
                values += online.defaults
                statuses += [Status.UNAVAILABLE] * len(online.defaults)
                continue
            for value, status in online.plan.read(state, as_of):
                values.append(value)
                statuses.append(status)
        return Served(values, statuses, tuple(unknown))

    def apply(self, log: EventLog, until: int | None = None) -> int:
        """Fold what the event log holds beyond the store's offset, up to ``until``; returns the new offset.

        Frames are applied one transaction each. Safe to run in several processes at once.
        """
        for frame in log.read(self.offset, until) if self._views else ():
            self._apply_frame(frame)
        return self.offset

    def rebuild(self, fresh: OnlineStore, log: EventLog) -> None:
        """Replace the rows of the views of ``fresh``, an empty store, by what the log gives, in one transaction.

        Readers and the consumers of the log go on meanwhile. Rows of views that are not declared any more are dropped.
        """
        while not self._replaced(fresh, fresh.apply(log)):
            pass

    def holding(self, column: str, value: Any) -> int:
        """The number of rows whose key, ids or texts hold ``value``; in keys, where the view has ``column`` among its keys."""
        positions = {one.prefix: one.plan.view.columns.index(column) for one in self._views if column in one.plan.view.columns}
        packed = pack_key([value])[1:] if isinstance(value, str) else None
        found = 0
        for key, row in self._store.scan(b""):
            at = positions.get(key[:_PREFIX])
            keyed = at is not None and unpack_key(key[_PREFIX:])[at] == value
            found += keyed or (packed is not None and (packed in key or packed in row))
        return found

    def _replaced(self, fresh: OnlineStore, offset: int) -> bool:
        """Put the rows of ``fresh`` in the place of its views'; False where these have been taken beyond ``offset`` meanwhile."""
        others = tuple(one.prefix for one in self._views if one.prefix not in {other.prefix for other in fresh._views})
        kept = (*others, *(_OFFSET + prefix for prefix in others))
        with self._store.transaction() as transaction:
            held = transaction.get_many(fresh._offset_keys)
            if any(int.from_bytes(one or b"", "little") > offset for one in held):
                return False
            for key, _ in self._store.scan(b""):
                if not key.startswith(kept):
                    transaction.delete(key)
            for key, row in fresh._store.scan(b""):
                transaction.put(key, row)
        return True

    def _apply_frame(self, frame: Frame) -> None:
        end = frame.end.to_bytes(8, "little")
        with self._store.transaction() as transaction:
            offsets = [int.from_bytes(held or b"", "little") for held in transaction.get_many(self._offset_keys)]
            views = zip(self._views, self._offset_keys, offsets, strict=True)
            behind = [(online, key, offset) for online, key, offset in views if offset < frame.end]
            added = [
                (online.prefix + key, online.rows, facts)
                for online, _, offset in behind
                if online.plan.view.source.name == frame.source
                for key, facts in online.rows.added(frame.batch.slice(max(0, offset - frame.offset)))
            ]
            held = transaction.get_many([name for name, _, _ in added])
            for (name, rows, facts), row in zip(added, held, strict=True):
                transaction.put(name, rows.insert(row, facts))
            for _, key, _ in behind:
                transaction.put(key, end)


def _online(plan: ViewPlan) -> _Online:
    """Eight bytes that change with whatever changes a stored row: source, keys, columns kept, retention, lifetimes."""
    view = plan.view
    lifetimes = [plan.aggregates[i] for i in plan.lifetimes]
    folds = [(one.function, one.column, one.argument, one.where, one.by) for one in lifetimes]
    identity = (view.source.name, view.source.kind, view.columns, plan.columns, [str(type_) for type_ in plan.types], plan.retention, folds)
    prefix = hashlib.sha256(repr(identity).encode()).digest()[:_PREFIX]
    nothing = tuple(value for value, _ in plan.read(plan.empty(), 0))
    return _Online(plan, RowFormat(plan), prefix, nothing, tuple(aggregate.default for aggregate in plan.aggregates))


def as_columns(values: Sequence[Any], types: Sequence[Type]) -> list[Array]:
    """One request's values as columns of shape ``(1,)``."""
    return [
        np.array([np.nan if value is None else value]) if type_ == Type.FLOAT
        else _object(value) if value is None or type_ in (Type.STR, Type.JSON)
        else np.array([value])
        for value, type_ in zip(values, types, strict=True)
    ]  # fmt: skip


def _object(value: Any) -> Array:
    column = np.empty(1, dtype=object)
    column[0] = value
    return column
