"""The writing side of the online store: frames of the event log folded into packed rows, each event once whatever is killed when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mainspring.errors import DataError, StorageError
from mainspring.feature_store.online_view import OnlineView
from mainspring.storage.key_value import KeyValue, KeyValueTransaction
from mainspring.storage.log import Frame, Log, pieces
from mainspring.storage.sharded import PREFIX_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

_OFFSET = b"\x00offset:"
_SKIPPED = b"\x00skipped:"
_STREAM = b"\x00stream:"
_ALL = 2**63 - 1
_ROWS = 131_072


class OnlineWriter:
    """What writes one store: all of an online store, or the shard ``i`` of ``n`` that ``share`` names, whose keys alone it holds.

    Every view has an offset into the event log, which moves in the transaction that folds the events before it.
    """

    def __init__(self, views: Sequence[OnlineView], store: KeyValue, share: tuple[int, int] | None = None) -> None:
        self._views = views
        self._store = store
        self._share = share
        self._offset_keys = [_OFFSET + online.prefix for online in views]

    @property
    def shards(self) -> int:
        """Among how many writers the keys are divided."""
        return 1 if self._share is None else self._share[1]

    @property
    def offset(self) -> int:
        """How much of the event log has been applied to every view: the number of the first event that has not."""
        held = self._store.get_many(self._offset_keys)
        return min((int.from_bytes(one or b"", "little") for one in held), default=_ALL)

    def reached(self, log: Log) -> int:
        """How far into the log this has come: its offset, or without views, which follow nothing, the end."""
        return self.offset if self._views else log.end

    def apply(self, log: Log, until: int | None = None, progress: Callable[[int, int], None] | None = None) -> None:
        """See `OnlineStore.apply`."""
        start = self.reached(log)
        end = None if progress is None else log.end if until is None else min(until, log.end)
        for frames in pieces(log.read(start, until), _ROWS):
            self.apply_frames(frames)
            if progress is not None and end is not None:
                progress(frames[-1].end - start, max(end, frames[-1].end) - start)

    def apply_frames(self, frames: Sequence[Frame]) -> None:
        """Fold what a view has not had of frames that follow on each other, and move its offset to their end, in one transaction.

        Raises:
            DataError: a frame does not fit the declaration; nothing was applied.
        """
        self._check(frames)
        end = frames[-1].end
        with self._store.transaction() as transaction:
            for online, key, offset in self._behind(transaction, end):
                self._insert(transaction, online, frames, offset)
                transaction.put(key, end.to_bytes(8, "little"))

    def skip(self, frame: Frame) -> None:
        """Move the offsets past the frame without applying it, and remember that, for `apply_skipped`, in one transaction."""
        with self._store.transaction() as transaction:
            for online, key, offset in self._behind(transaction, frame.end):
                transaction.put(key, frame.end.to_bytes(8, "little"))
                if online.plan.view.source.name == frame.source:
                    transaction.put(_mark(online, frame), max(offset, frame.offset).to_bytes(8, "little"))

    def apply_skipped(self, frame: Frame) -> None:
        """Fold a frame into the views that skipped it and forget that they did, in one transaction; others are left as they are.

        Raises:
            DataError: the frame still does not fit the declaration; nothing has changed.
        """
        self._check([frame])
        with self._store.transaction() as transaction:
            for online in self._views:
                mark = transaction.get(_mark(online, frame))
                if mark is not None:
                    self._insert(transaction, online, [frame], int.from_bytes(mark, "little"))
                    transaction.delete(_mark(online, frame))

    def apply_batch(self, stream: str, number: int, source: str, batch: pa.RecordBatch, origin: str) -> bool:
        """See `OnlineStore.apply_batch`."""
        views = [online for online in self._views if online.plan.view.source.name == source]
        keys = [_STREAM + online.prefix + stream.encode() for online in views]
        frame = Frame(0, source, batch)
        self._check([frame])
        with self._store.transaction() as transaction:
            counts = zip(views, keys, transaction.get_many(keys), strict=True)
            behind = [(online, key) for online, key, held in counts if _is_next(online, stream, held, number, origin)]
            for online, key in behind:
                self._insert(transaction, online, [frame], 0)
                transaction.put(key, (number + 1).to_bytes(8, "little") + origin.encode())
        return bool(behind)

    def rebuild(self, fresh: OnlineWriter, log: Log) -> None:
        """Replace the rows of the views of ``fresh``, the writer of an empty store, by what the log gives, in one transaction.

        Readers and the consumers of the log go on meanwhile. Events that do not fit are skipped again. Rows of views that are
        not declared any more are dropped.

        Raises:
            StorageError: a view's events do not come from the log alone.
        """
        fed = {key[len(_STREAM) :][:PREFIX_BYTES] for key, _ in self._store.scan(_STREAM)}
        for online in fresh._views:
            if online.prefix in fed:
                raise StorageError(
                    f"View '{online.plan.view.name}': its events come by a stream beside the event log, which cannot give them again. "
                    "Empty the online store, and start the stream from its beginning."
                )
        while not self._replaced(fresh, fresh._refill(log)):
            pass

    def _refill(self, log: Log) -> int:
        for frames in pieces(log.read(self.reached(log)), _ROWS):
            try:
                self.apply_frames(frames)
            except DataError:
                for frame in frames:
                    try:
                        self.apply_frames([frame])
                    except DataError:
                        self.skip(frame)
        return self.reached(log)

    def _replaced(self, fresh: OnlineWriter, offset: int) -> bool:
        """Put the rows of ``fresh`` in the place of its views'; False where these have been taken beyond ``offset`` meanwhile."""
        others = [one for one in self._views if one.prefix not in {other.prefix for other in fresh._views}]
        rows = tuple(prefix for one in others for prefix in (one.prefix, one.older_prefix))
        kept = rows + tuple(kind + one.prefix for kind in (_OFFSET, _SKIPPED, _STREAM) for one in others)
        with self._store.transaction() as transaction:
            held = transaction.get_many(fresh._offset_keys)
            if any(int.from_bytes(one or b"", "little") > offset for one in held):
                return False
            for key, _ in self._store.scan(b""):
                of_view = key.startswith((_OFFSET, _SKIPPED, _STREAM)) or not key.startswith(b"\x00")
                if of_view and not key.startswith(kept):
                    transaction.delete(key)
            for key, row in fresh._store.scan(b""):
                transaction.put(key, row)
        return True

    def _check(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            for online in self._views:
                if online.plan.view.source.name == frame.source:
                    try:
                        online.check(frame.batch)
                    except DataError as error:
                        raise DataError(f"Events {frame.offset} to {frame.end} of '{frame.source}': {error}") from error

    def _behind(self, transaction: KeyValueTransaction, end: int) -> list[tuple[OnlineView, bytes, int]]:
        """The views that have not had all events before ``end``, with the keys of their offsets, and these."""
        offsets = [int.from_bytes(held or b"", "little") for held in transaction.get_many(self._offset_keys)]
        views = zip(self._views, self._offset_keys, offsets, strict=True)
        return [(online, key, offset) for online, key, offset in views if offset < end]

    def _insert(self, transaction: KeyValueTransaction, online: OnlineView, frames: Sequence[Frame], offset: int) -> None:
        """Put the frames' facts from an offset on into the view's rows."""
        import pyarrow as pa

        own = [frame for frame in frames if frame.source == online.plan.view.source.name and frame.end > offset]
        batches = [frame.batch.slice(max(0, offset - frame.offset)) for frame in own]
        filled = [batch for batch in batches if batch.num_rows]
        if not filled:
            return
        try:
            facts = online.incoming(filled, self._share)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise DataError(f"Events {own[0].offset} to {own[-1].end} of '{own[0].source}': {error}") from error
        keys = [online.prefix + key for key in facts.keys]
        rows, older = facts.rows(transaction.get_many(keys), lambda i: transaction.get(online.older(keys[i])) or b"")
        transaction.put_many(keys, rows)
        second = {online.older(keys[i]): row for i, row in older.items()}
        kept = {key: row for key, row in second.items() if row}
        transaction.put_many(list(kept), list(kept.values()))
        for key in second.keys() - kept.keys():
            transaction.delete(key)


def _mark(online: OnlineView, frame: Frame) -> bytes:
    return _SKIPPED + online.prefix + frame.offset.to_bytes(8, "big")


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
