"""Online features: one packed row per (view, key), all views of a request in one round trip, updated from the event log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.breaker import Breaker
from mainspring.columns import Array, to_array
from mainspring.errors import StorageError
from mainspring.feature_store.keys import pack_key, pack_keys, unpack_key
from mainspring.feature_store.online_view import OnlineView
from mainspring.feature_store.online_writer import OnlineWriter
from mainspring.schema import Status, Type
from mainspring.spec import System, View
from mainspring.storage.key_value import KeyValue
from mainspring.storage.log import Frame, Log
from mainspring.storage.sharded import PREFIX_BYTES, ShardedKeyValue

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)
_Rows = Sequence[bytes | None]


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
    that is new, or declared otherwise, begins at the start of the log, while the others go on. ``writers`` write it: one, or over
    a store in shards one a shard, each with offsets of its own, in as many processes.
    """

    def __init__(self, system: System, store: KeyValue, *, sources: Collection[str] | None = None, breaker: Breaker | None = None) -> None:
        """``sources`` names those whose views are meant, all without it. While ``breaker`` is open `read` does not ask the store."""
        self._store = store
        self._breaker = breaker
        views = {view: aggregates for view, aggregates in system.views.items() if sources is None or view.source.name in sources}
        self._views = [OnlineView(view, aggregates) for view, aggregates in views.items()]
        shards = store.shards if isinstance(store, ShardedKeyValue) else ()
        shares = [OnlineWriter(self._views, shard, (number, len(shards))) for number, shard in enumerate(shards)]
        self.writers = tuple(shares or [OnlineWriter(self._views, store)])
        aggregates = [aggregate for online in self._views for aggregate in online.plan.aggregates]
        self.names = tuple(aggregate.name for aggregate in aggregates)
        self._types = [aggregate.type for aggregate in aggregates]

    @property
    def offset(self) -> int:
        """How much of the event log has been applied to every view: the number of the first event that has not."""
        return min(writer.offset for writer in self.writers)

    def reached(self, log: Log) -> int:
        """See `OnlineWriter.reached`."""
        return min(writer.reached(log) for writer in self.writers)

    def read(self, request: Mapping[str, Any], as_of: int, deadline_us: int | None = None) -> Served:
        """Every aggregate for one request, as known at ``as_of``.

        A key that was never seen has status ``unknown_key``. When the store fails, is left out by its breaker, or answers after
        ``deadline_us`` microseconds, every aggregate takes its declared default with status ``unavailable``; where one row is damaged,
        those of its view do.
        """
        keys = [[online.key(request)] for online in self._views]
        read = self._read(keys, deadline_us)
        values: list[Any] = []
        statuses: list[Status] = []
        unknown = []
        for i, online in enumerate(self._views):
            if read is None:
                answer: Sequence[tuple[Any, Status]] = online.unavailable
            else:
                (recent,), (older,) = read[i]
                if recent is None:
                    unknown.append(online.plan.view)
                answer = online.answer(self._store, keys[i][0], recent, older, as_of)
            for value, status in answer:
                values.append(value)
                statuses.append(status)
        return Served(values, statuses, tuple(unknown))

    def read_many(
        self, requests: Mapping[str, Sequence[Any] | Array], as_of: Sequence[int] | Array, deadline_us: int | None = None
    ) -> ServedMany:
        """What `read` gives for each of ``n`` requests, in one round trip; ``requests`` holds the columns of keys, of length ``n``."""
        instants = np.asarray(as_of, dtype=np.int64)
        n = len(instants)
        distinct = {
            on: _distinct(_packed([requests[name] for name in on], n), instants) for on in {one.plan.view.on for one in self._views}
        }
        asked = [distinct[online.plan.view.on] for online in self._views]
        keys = [online.keys(packed) for online, (packed, _, _) in zip(self._views, asked, strict=True)]
        read = self._read(keys, deadline_us)
        if read is None:
            defaults = [value for online in self._views for value, _ in online.unavailable]
            unread = [to_array([value] * n, type_) for value, type_ in zip(defaults, self._types, strict=True)]
            return self._served(unread, np.full((n, len(unread)), Status.UNAVAILABLE, dtype=np.uint8))
        columns: list[Array] = []
        statuses = [np.empty((n, 0), np.uint8)]
        for online, own_keys, (_, own_instants, place), rows in zip(self._views, keys, asked, read, strict=True):
            values, states = online.answer_many(self._store, own_keys, *rows, own_instants)
            columns += values if place is None else [column[place] for column in values]
            statuses.append(states if place is None else states[place])
        return self._served(columns, np.concatenate(statuses, axis=1))

    def apply(self, log: Log, until: int | None = None, progress: Callable[[int, int], None] | None = None) -> int:
        """Fold what the event log holds beyond the store's offset, up to ``until``; returns how far it has come.

        Frames are applied some ten thousand events to a transaction, after each of which ``progress`` gets how much has been
        applied, and how much is to be, in numbers of the log. Safe to run in several processes at once, and to be killed at any
        point.

        Raises:
            DataError: a frame does not fit the declaration; those before it are applied.
        """
        for writer in self.writers:
            writer.apply(log, until, progress)
        return self.reached(log)

    def apply_frames(self, frames: Sequence[Frame]) -> None:
        """See `OnlineWriter.apply_frames`."""
        for writer in self.writers:
            writer.apply_frames(frames)

    def skip(self, frame: Frame) -> None:
        """See `OnlineWriter.skip`."""
        for writer in self.writers:
            writer.skip(frame)

    def apply_skipped(self, frame: Frame) -> None:
        """See `OnlineWriter.apply_skipped`."""
        for writer in self.writers:
            writer.apply_skipped(frame)

    def apply_batch(self, stream: str, number: int, source: str, batch: pa.RecordBatch, origin: str = "") -> bool:
        """Fold micro-batch ``number`` (0, 1, 2, ...) of a stream that brings events of ``source``; False where it was folded before.

        Every view counts the batches of every stream in the transaction that folds them, so that a batch that comes again
        changes nothing. ``origin`` names what gave the numbers, such as a checkpoint.

        Raises:
            DataError: the batch does not fit the declaration; nothing was folded.
            StorageError: batches before it are missing in a view, or the numbers come from another origin; nothing was folded.
        """
        folded = [writer.apply_batch(stream, number, source, batch, origin) for writer in self.writers]
        return any(folded)

    def rebuild(self, fresh: OnlineStore, log: Log) -> None:
        """Replace the rows of the views of ``fresh``, an empty store in as many shards: see `OnlineWriter.rebuild`."""
        for writer, other in zip(self.writers, fresh.writers, strict=True):
            writer.rebuild(other, log)

    def holding(self, column: str, value: Any) -> int:
        """The number of rows whose key, ids or texts hold ``value``; in keys, where the view has ``column`` among its keys."""
        keyed_by = [one for one in self._views if column in one.plan.view.columns]
        positions = {prefix: one.plan.view.columns.index(column) for one in keyed_by for prefix in (one.prefix, one.older_prefix)}
        alone = pack_key([value])
        packed = msgspec.msgpack.encode(value) if isinstance(value, str) else None
        found = 0
        for key, row in self._store.scan(b""):
            at = positions.get(key[:PREFIX_BYTES])
            values = None if at is None else unpack_key(key[PREFIX_BYTES:])
            keyed = key[PREFIX_BYTES:] == alone if values is None else values[at or 0] == value
            found += keyed or (packed is not None and (packed in key or packed in row))
        return found

    def _read(self, keys: Sequence[Sequence[bytes]], deadline_us: int | None) -> list[tuple[_Rows, _Rows]] | None:
        """First and second rows of each view's keys, the second where they are commonly needed; None where the store failed or was late."""
        if self._breaker is not None and not self._breaker.ready():
            return None
        rows = self._asked(keys, deadline_us)
        if self._breaker is not None:
            self._breaker.succeeded() if rows is not None else self._breaker.failed()
        if rows is None:
            return None
        read: list[tuple[_Rows, _Rows]] = []
        at = 0
        for online, own in zip(self._views, keys, strict=True):
            n = len(own)
            read.append((rows[at : at + n], rows[at + n : at + 2 * n] if online.whole else [None] * n))
            at += (1 + online.whole) * n
        return read

    def _asked(self, keys: Sequence[Sequence[bytes]], deadline_us: int | None) -> _Rows | None:
        started = time.perf_counter_ns()
        wanted: list[bytes] = []
        for online, own in zip(self._views, keys, strict=True):
            wanted += own
            if online.whole:
                wanted += map(online.older, own)
        try:
            rows = self._store.get_many(wanted)
        except StorageError as error:
            _log.error("%s", error)
            return None
        return None if deadline_us is not None and time.perf_counter_ns() - started > deadline_us * 1_000 else rows

    def _served(self, columns: Iterable[Array], statuses: npt.NDArray[np.uint8]) -> ServedMany:
        return ServedMany(dict(zip(self.names, columns, strict=True)), statuses)


def _packed(columns: Sequence[Sequence[Any] | Array], n: int) -> list[bytes]:
    """The keys of ``n`` requests, from columns of their values; what is one and the same object in all of them is packed once."""
    plain = [column if isinstance(column, list | tuple) else np.asarray(column).tolist() for column in columns]
    if n and all(all(value is column[0] for value in column) for column in plain):
        return [pack_key([column[0] for column in plain])] * n
    return pack_keys(zip(*plain, strict=True))


def _distinct(
    keys: list[bytes], instants: npt.NDArray[np.int64]
) -> tuple[list[bytes], npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    """Keys and instants without repetitions, and where each is found among them; None where there are none: one user, many items."""
    asked: list[Any] = keys if (instants == instants[:1]).all() else list(zip(keys, instants.tolist(), strict=True))
    first = dict(zip(reversed(asked), range(len(asked) - 1, -1, -1), strict=True))
    if len(first) == len(keys):
        return keys, instants, None
    rows = sorted(first.values())
    number = {asked[row]: number for number, row in enumerate(rows)}
    return [keys[row] for row in rows], instants[rows], np.array([number[one] for one in asked])


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
