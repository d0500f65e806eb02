"""Online features: one packed row per (view, key), all views of a request in one round trip, updated from the event log."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mainspring.columns import Array, to_array
from mainspring.errors import DataError, StorageError
from mainspring.feature_engineering.facts import ViewPlan
from mainspring.feature_store.packing import RowFormat, pack_key
from mainspring.schema import Status, Type
from mainspring.spec import System, View
from mainspring.storage.key_value import KeyValue, KeyValueTransaction
from mainspring.storage.log import Frame, Log
from mainspring.storage.sharded import ShardedKeyValue

_OFFSET = b"\x00offset:"
_SKIPPED = b"\x00skipped:"
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

    Over a store in shards it is one such store per shard, each with offsets of its own; ``share=(i, n)`` makes it the one of
    shard ``i`` of ``n``, whose keys alone it holds.
    """

    def __init__(self, system: System, store: KeyValue, share: tuple[int, int] | None = None) -> None:
        self._store = store
        self._share = share
        shards = store.shards if isinstance(store, ShardedKeyValue) else ()
        self.shares = tuple(OnlineStore(system, shard, (number, len(shards))) for number, shard in enumerate(shards))
        self._views = [_online(ViewPlan(view, aggregates)) for view, aggregates in system.views.items()]
        self.names = tuple(aggregate.name for online in self._views for aggregate in online.plan.aggregates)
        self._offset_keys = [_OFFSET + online.prefix for online in self._views]
        self._types = [aggregate.type for online in self._views for aggregate in online.plan.aggregates]

    @property
    def offset(self) -> int:
        """How much of the event log has been applied to every view: the number of the first event that has not."""
        if self.shares:
            return min(share.offset for share in self.shares)
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

    def apply(self, log: Log, until: int | None = None) -> int:
        """Fold what the event log holds beyond the store's offset, up to ``until``; returns the new offset.

        Frames are applied one transaction each. Safe to run in several processes at once.

        Raises:
            DataError: a frame does not fit the declaration.
        """
        for frame in log.read(self.offset, until) if self._views else ():
            self.apply_frame(frame)
        return self.offset

    def apply_frame(self, frame: Frame) -> None:
        """Fold what a view has not had of the frame, and move its offset to the frame's end, in one transaction.

        Raises:
            DataError: the frame does not fit the declaration; nothing of it was applied.
        """
        self.check(frame)
        for share in self.shares:
            share.apply_frame(frame)
        if self.shares:
            return
        with self._store.transaction() as transaction:
            behind = self._behind(transaction, frame)
            self._insert(transaction, frame, [(online, offset) for online, _, offset in behind])
            for _, key, _ in behind:
                transaction.put(key, frame.end.to_bytes(8, "little"))

    def check(self, frame: Frame) -> None:
        """Hold the frame's columns to what the views read.

        Raises:
            DataError: one is not there, or its values cannot be of its declared type.
        """
        for online in self._views:
            if online.plan.view.source.name == frame.source:
                try:
                    online.rows.check(frame.batch)
                except DataError as error:
                    raise DataError(f"Events {frame.offset} to {frame.end} of '{frame.source}': {error}") from error

    def skip(self, frame: Frame) -> None:
        """Move the offsets past the frame without applying it, and remember that, for `apply_skipped`, in one transaction."""
        for share in self.shares:
            share.skip(frame)
        if self.shares:
            return
        with self._store.transaction() as transaction:
            for online, key, offset in self._behind(transaction, frame):
                transaction.put(key, frame.end.to_bytes(8, "little"))
                if online.plan.view.source.name == frame.source:
                    transaction.put(_mark(online, frame), max(offset, frame.offset).to_bytes(8, "little"))

    def apply_skipped(self, frame: Frame) -> None:
        """Fold a frame into the views that skipped it and forget that they did, in one transaction; others are left as they are.

        Raises:
            DataError: the frame still does not fit the declaration; nothing has changed.
        """
        self.check(frame)
        for share in self.shares:
            share.apply_skipped(frame)
        if self.shares:
            return
        with self._store.transaction() as transaction:
            marks = [(online, transaction.get(_mark(online, frame))) for online in self._views]
            skipped = [(online, int.from_bytes(mark, "little")) for online, mark in marks if mark is not None]
            self._insert(transaction, frame, skipped)
            for online, _ in skipped:
                transaction.delete(_mark(online, frame))

    def _behind(self, transaction: KeyValueTransaction, frame: Frame) -> list[tuple[_Online, bytes, int]]:
        """The views that have not had all of the frame, with the keys of their offsets, and these."""
        offsets = [int.from_bytes(held or b"", "little") for held in transaction.get_many(self._offset_keys)]
        views = zip(self._views, self._offset_keys, offsets, strict=True)
        return [(online, key, offset) for online, key, offset in views if offset < frame.end]

    def _insert(self, transaction: KeyValueTransaction, frame: Frame, views: Sequence[tuple[_Online, int]]) -> None:
        """Put the frame's facts from an offset on into the rows of each view."""
        try:
            added = [
                (online.prefix + key, online.rows, facts)
                for online, offset in views
                if online.plan.view.source.name == frame.source
                for key, facts in online.rows.added(frame.batch.slice(max(0, offset - frame.offset)), self._share)
            ]
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise DataError(f"Events {frame.offset} to {frame.end} of '{frame.source}': {error}") from error
        held = transaction.get_many([name for name, _, _ in added])
        for (name, rows, facts), row in zip(added, held, strict=True):
            transaction.put(name, rows.insert(row, facts))


def _mark(online: _Online, frame: Frame) -> bytes:
    return _SKIPPED + online.prefix + frame.offset.to_bytes(8, "big")


def _online(plan: ViewPlan) -> _Online:
    """Eight bytes that change with whatever changes a stored row: source, keys, columns kept, retention, lifetimes."""
    view = plan.view
    lifetimes = [plan.aggregates[i] for i in plan.lifetimes]
    folds = [(one.function, one.column, one.argument, one.where, one.by) for one in lifetimes]
    identity = (view.source.name, view.source.kind, view.columns, plan.columns, [str(type_) for type_ in plan.types], plan.retention, folds)
    prefix = hashlib.sha256(repr(identity).encode()).digest()[:8]
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
