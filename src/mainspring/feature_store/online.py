"""Online features: one packed row per (view, key), all views of a request in one round trip, updated from the event log."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mainspring.columns import Array
from mainspring.errors import StorageError
from mainspring.feature_engineering.facts import ViewPlan
from mainspring.feature_store.packing import RowFormat, pack_key
from mainspring.schema import Status, Type
from mainspring.spec import System, View
from mainspring.storage.event_log import EventLog, Frame
from mainspring.storage.key_value import KeyValue

_OFFSET = b"\x00offset:"


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


class OnlineStore:
    """The online side of a System's views over a key-value store.

    The store is derived state: `apply` folds frames of the event log into it and moves its offset in the same
    transaction, so that every event counts exactly once whatever is killed when, and by however many processes it runs.
    """

    def __init__(self, system: System, store: KeyValue) -> None:
        self._store = store
        self._views = [_online(ViewPlan(view, aggregates)) for view, aggregates in system.views.items()]
        self.names = tuple(aggregate.name for online in self._views for aggregate in online.plan.aggregates)
        self._offset_key = _OFFSET + hashlib.sha256(b"".join(online.prefix for online in self._views)).digest()[:8]

    @property
    def offset(self) -> int:
        """How much of the event log has been applied: the number of the first event that has not."""
        held = self._store.get_many([self._offset_key])[0]
        return 0 if held is None else int.from_bytes(held, "little")

    def read(self, request: Mapping[str, Any], as_of: int, deadline_us: int | None = None) -> Served:
        """Every aggregate for one request, as known at ``as_of``.

        A key that was never seen has status ``unknown_key``. When the store fails, or answers after ``deadline_us``
        microseconds, every aggregate takes its declared default with status ``unavailable``.
        """
        started = time.perf_counter_ns()
        keys = [online.prefix + pack_key([request[column] for column in online.plan.view.on]) for online in self._views]
        try:
            rows = self._store.get_many(keys)
        except StorageError:
            return self._unavailable()
        if deadline_us is not None and time.perf_counter_ns() - started > deadline_us * 1_000:
            return self._unavailable()
        values: list[Any] = []
        statuses: list[Status] = []
        unknown = []
        for online, row in zip(self._views, rows, strict=True):
            if row is None:
                unknown.append(online.plan.view)
                values += online.nothing
                statuses += [Status.UNKNOWN_KEY] * len(online.plan.aggregates)
                continue
            for value, status in online.plan.read(online.rows.unpack(row), as_of):
                values.append(value)
                statuses.append(status)
        return Served(values, statuses, tuple(unknown))

    def apply(self, log: EventLog, until: int | None = None) -> int:
        """Fold what the event log holds beyond the store's offset, up to ``until``; returns the new offset.

        Frames are applied one transaction each. Safe to run in several processes at once.
        """
        for frame in log.read(self.offset, until):
            self._apply_frame(frame)
        return self.offset

    def _apply_frame(self, frame: Frame) -> None:
        with self._store.transaction() as transaction:
            offset = int.from_bytes(transaction.get(self._offset_key) or b"", "little")
            if offset >= frame.end:
                return
            batch = frame.batch.slice(max(0, offset - frame.offset))
            views = [online for online in self._views if online.plan.view.source.name == frame.source]
            added = [(online.prefix + key, online.rows, facts) for online in views for key, facts in online.rows.added(batch)]
            held = transaction.get_many([name for name, _, _ in added])
            for (name, rows, facts), row in zip(added, held, strict=True):
                transaction.put(name, rows.insert(row, facts))
            transaction.put(self._offset_key, frame.end.to_bytes(8, "little"))

    def _unavailable(self) -> Served:
        defaults = [aggregate.default for online in self._views for aggregate in online.plan.aggregates]
        return Served(defaults, [Status.UNAVAILABLE] * len(defaults), ())


def _online(plan: ViewPlan) -> _Online:
    """Eight bytes that change with whatever changes a stored row: source, keys, columns kept, retention, lifetimes."""
    view = plan.view
    lifetimes = [plan.aggregates[i] for i in plan.lifetimes]
    folds = [(one.function, one.column, one.argument, one.where, one.by) for one in lifetimes]
    identity = (view.source.name, view.source.kind, view.columns, plan.columns, [str(type_) for type_ in plan.types], plan.retention, folds)
    prefix = hashlib.sha256(repr(identity).encode()).digest()[:8]
    return _Online(plan, RowFormat(plan), prefix, tuple(value for value, _ in plan.read(plan.empty(), 0)))


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
