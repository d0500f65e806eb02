"""Online features: one packed row per (view, key), all views of a request in one round trip, updated from the event log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.columns import Array, to_array
from mainspring.errors import StorageError
from mainspring.feature_store.online_view import OnlineView
from mainspring.schema import Status, Type
from mainspring.spec import System, View
from mainspring.storage.event_log import EventLog, Frame
from mainspring.storage.key_value import KeyValue, KeyValueTransaction

_OFFSET = b"\x00offset:"
_STREAM = b"\x00stream:"
_ALL = 2**63 - 1
_MOST_ROWS = 65_536
_log = logging.getLogger(__name__)


class Served(NamedTuple):
    """Aggregates of one request in the order of `OnlineStore.names`: values (None for null) and statuses."""

    values: list[Any]
    statuses: list[Status]
    unknown: tuple[View, ...]


class ServedMany(NamedTuple):
    """Aggregates of ``n`` requests: values by name as columns of shape ``(n,)``, statuses of shape ``(n, len(names))``, see `Status`."""

    values: dict[str, Array]
    statuses: npt.NDArray[np.uint8]


class OnlineStore:
    """The online side of a System's views over a key-value store.

    The store is derived state: `apply` folds frames of the event log into it and moves the views' offsets in the same
    transaction, so that every event counts exactly once whatever is killed when, and by however many processes it runs. A view
    that is new, or declared otherwise, begins at the start of the log, while the others go on.
    """

    def __init__(self, system: System, store: KeyValue) -> None:
        self._store = store
        self._views = [OnlineView(view, aggregates) for view, aggregates in system.views.items()]
        aggregates = [aggregate for online in self._views for aggregate in online.plan.aggregates]
        self.names = tuple(aggregate.name for aggregate in aggregates)
        self._types = [aggregate.type for aggregate in aggregates]
        self._offset_keys = [_OFFSET + online.prefix for online in self._views]

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
        rows = self._get([online.key(request) for online in self._views], deadline_us)
        values: list[Any] = []
        statuses: list[Status] = []
        unknown = []
        for i, online in enumerate(self._views):
            row = None if rows is None else rows[i]
            if rows is not None and row is None:
                unknown.append(online.plan.view)
            for value, status in online.unavailable if rows is None else online.answer(row, as_of):
                values.append(value)
                statuses.append(status)
        return Served(values, statuses, tuple(unknown))

    def read_many(
        self, requests: Mapping[str, Sequence[Any] | Array], as_of: Sequence[int] | Array, deadline_us: int | None = None
    ) -> ServedMany:
        """What `read` gives for each of ``n`` requests, in one round trip; ``requests`` holds the columns of keys, of length ``n``."""
        instants = np.asarray(as_of, dtype=np.int64)
        n = len(instants)
        rows = self._get([key for online in self._views for key in online.keys(requests, n)], deadline_us)
        if rows is None:
            defaults = [value for online in self._views for value, _ in online.unavailable]
            columns = [to_array([value] * n, type_) for value, type_ in zip(defaults, self._types, strict=True)]
            return self._served(columns, np.full((n, len(columns)), Status.UNAVAILABLE, dtype=np.uint8))
        answers = [online.answer_many(rows[i * n : (i + 1) * n], instants) for i, online in enumerate(self._views)]
        columns = [column for values, _ in answers for column in values]
        return self._served(columns, np.concatenate([np.empty((n, 0), np.uint8), *(statuses for _, statuses in answers)], axis=1))

    def apply(self, log: EventLog, until: int | None = None, progress: Callable[[int, int], None] | None = None) -> int:
        """Fold what the event log holds beyond the store's offset, up to ``until``; returns the new offset.

        Frames are applied some ten thousand events to a transaction, after each of which ``progress`` gets the numbers of events
        applied and to apply. Safe to run in several processes at once, and to be killed at any point.
        """
        start, end = self.offset, log.end if until is None else min(until, log.end)
        for frames in _bundles(log.read(start, end)) if self._views and start < end else ():
            self._apply(frames)
            if progress is not None:
                progress(frames[-1].end - start, end - start)
        return self.offset

    def _get(self, keys: list[bytes], deadline_us: int | None) -> list[bytes | None] | None:
        """The rows of keys; None where the store failed or was late."""
        started = time.perf_counter_ns()
        try:
            rows = self._store.get_many(keys)
        except StorageError as error:
            _log.error("%s", error)
            return None
        return None if deadline_us is not None and time.perf_counter_ns() - started > deadline_us * 1_000 else rows

    def _served(self, columns: Iterable[Array], statuses: npt.NDArray[np.uint8]) -> ServedMany:
        return ServedMany(dict(zip(self.names, columns, strict=True)), statuses)

    def _apply(self, frames: Sequence[Frame]) -> None:
        end = frames[-1].end
        with self._store.transaction() as transaction:
            offsets = [int.from_bytes(held or b"", "little") for held in transaction.get_many(self._offset_keys)]
            behind = [(online, key, at) for online, key, at in zip(self._views, self._offset_keys, offsets, strict=True) if at < end]
            for online, offset_key, offset in behind:
                source = online.plan.view.source.name
                beyond = [frame for frame in frames if frame.source == source and frame.end > offset]
                _insert(transaction, online, [frame.batch.slice(max(0, offset - frame.offset)) for frame in beyond])
                transaction.put(offset_key, end.to_bytes(8, "little"))

    def apply_batch(self, stream: str, number: int, source: str, batch: pa.RecordBatch, origin: str = "") -> bool:
        """Fold micro-batch ``number`` (0, 1, 2, ...) of a stream that brings events of ``source``; False where it was folded before.

        Every view counts the batches of every stream in the transaction that folds them, so that a batch that comes again
        changes nothing. ``origin`` names what gave the numbers, such as a checkpoint.

        Raises:
            StorageError: batches before it are missing in a view, or the numbers come from another origin; nothing was folded.
        """
        views = [online for online in self._views if online.plan.view.source.name == source]
        keys = [_STREAM + online.prefix + stream.encode() for online in views]
        with self._store.transaction() as transaction:
            counts = zip(views, keys, transaction.get_many(keys), strict=True)
            behind = [(online, key) for online, key, held in counts if _is_next(online, stream, held, number, origin)]
            for online, key in behind:
                _insert(transaction, online, [batch])
                transaction.put(key, (number + 1).to_bytes(8, "little") + origin.encode())
        return bool(behind)


def _insert(transaction: KeyValueTransaction, online: OnlineView, batches: Sequence[pa.RecordBatch]) -> None:
    """Put the facts of the batches into the rows of their keys."""
    filled = [batch for batch in batches if batch.num_rows]
    if filled:
        facts = online.incoming(filled)
        keys = [online.prefix + key for key in facts.keys]
        transaction.put_many(keys, facts.rows(transaction.get_many(keys)))


def _is_next(online: OnlineView, stream: str, held: bytes | None, number: int, origin: str) -> bool:
    """Whether a view that holds this count must fold the batch now."""
    expected = int.from_bytes((held or b"")[:8], "little")
    if number > expected or (held is not None and held[8:] != origin.encode()):
        why = f"batch {expected} of it is due, not {number}" if number > expected else "its batches are numbered anew"
        raise StorageError(
            f"View '{online.plan.view.name}', stream '{stream}': {why}. What the view lacks, the stream must bring again: "
            "empty the online store, and start the stream from its beginning without a checkpoint."
        )
    return number == expected


def _bundles(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Frames by the transaction."""
    bundle: list[Frame] = []
    rows = 0
    for frame in frames:
        bundle.append(frame)
        rows += frame.batch.num_rows
        if rows >= _MOST_ROWS:
            yield bundle
            bundle, rows = [], 0
    if bundle:
        yield bundle


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
