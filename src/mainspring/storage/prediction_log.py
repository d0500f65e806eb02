"""The second record: every answer given. Workers append rows, readers follow with a cursor, old rows become Parquet.

A segment is named by its worker and the number of its first row. While its worker lives it is locked; a segment that is not
locked, or not its worker's last, is sealed.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.errors import StorageError
from mainspring.storage.durable import locked, make_directory, opened, replacing, sync_directory
from mainspring.storage.prediction_rows import (
    ASKED,
    Prediction,
    PredictionColumns,
    decode,
    encode_frames,
    encode_header,
    encoder,
    read_rows,
    segment,
    segments,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.storage.prediction_table import Mask

__all__ = ["ASKED", "Prediction", "PredictionColumns", "PredictionLog", "PredictionWriter"]

_WORKER = re.compile(r"[A-Za-z0-9_.-]+")


class PredictionWriter:
    """Appends predictions for one worker; each worker that lives at the same time needs a name of its own.

    A row is with the operating system when `append` returns: it survives the death of the process. It is fsynced within
    ``fsync_every_us`` by a thread in the background: a power cut may lose the rows of about that long, and readers that had
    seen them skip as many of the next. Safe to call from several threads.

    Raises:
        StorageError: the folder cannot be written, or a living writer has this worker's name.
    """

    def __init__(
        self, path: Path, columns: PredictionColumns, *, worker: str = "0", rotate_rows: int = 20_000, fsync_every_us: int = 1_000_000
    ) -> None:
        if not _WORKER.fullmatch(worker):
            raise StorageError(f"Prediction log, {path}: worker {worker!r} is not a usable name. Use letters, digits, '_', '.' and '-'.")
        self._path, self._columns, self._worker, self._rotate_rows = path, columns, worker, rotate_rows
        self._widths = len(columns.request.fields), len(columns.features.fields), len(columns.features.fields)
        self._encode = encoder().encode
        self._mutex = threading.Lock()
        self._closing = threading.Event()
        self._retired: list[int] = []
        self._dirty = False
        self._failure: OSError | None = None
        try:
            make_directory(path)
            self._lock = _own(path, worker)
            try:
                self._next = _resume(path, worker)
                self._start_segment()
                os.fsync(self._descriptor)
                sync_directory(path)
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise StorageError(f"Prediction log, {path}: cannot be opened ({error}). Make the folder writable.") from error
        self._thread = threading.Thread(target=self._sync_regularly, args=(fsync_every_us / 1e6,), name="prediction-sync", daemon=True)
        self._thread.start()

    def append(self, prediction: Prediction) -> None:
        """Write one row.

        Raises:
            StorageError: the writer is closed, the disk is full or fails, a tuple is not as long as its columns.
        """
        self.append_all([prediction])

    def append_all(self, predictions: Sequence[Prediction]) -> None:
        """Write some rows at once, or none of them; errors as in `append`."""
        if not predictions:
            return
        self._check(predictions)
        data = encode_frames(list(map(self._encode, predictions)))
        with self._mutex:
            if self._closing.is_set():
                raise StorageError(f"Prediction log, {self._path}, worker '{self._worker}': the writer is closed. Open another.")
            try:
                self._write(data, len(predictions))
            except OSError as error:
                more = f" and {len(predictions) - 1} more" if len(predictions) > 1 else ""
                raise StorageError(
                    f"Prediction log, {self._path}: request '{predictions[0].request_id}'{more} was not logged ({error}). "
                    "Free space on the disk or mend it."
                ) from error

    def close(self) -> None:
        """Make every row durable and let go of the worker's name; a second call does nothing.

        Raises:
            StorageError: the disk failed.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        try:
            self._sync()
        except OSError as error:
            raise StorageError(f"Prediction log, {self._path}: the last rows may not be durable ({error}). Mend the disk.") from error
        finally:
            os.close(self._descriptor)
            os.close(self._lock)

    def _check(self, predictions: Sequence[Prediction]) -> None:
        """Raises StorageError where a tuple is not as long as its columns."""
        for one in predictions:
            widths = len(one.request), len(one.features), len(one.statuses)
            if widths != self._widths:
                raise StorageError(
                    f"Prediction log, request '{one.request_id}': {widths[0]} request values, {widths[1]} features and {widths[2]} "
                    f"statuses do not fill {self._widths[0]} and {self._widths[1]} columns. Give a value for each."
                )

    def _write(self, data: bytes, rows: int) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._next - self._first >= self._rotate_rows:
            self._retired.append(self._descriptor)
            try:
                self._start_segment()
            except OSError:
                self._retired.pop()
                raise
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += written
        self._next += rows
        self._dirty = True

    def _start_segment(self) -> None:
        path, header = segment(self._path, self._worker, self._next, "rows"), encode_header(self._columns)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.write(descriptor, header) < len(header):
                raise OSError("no space for the header of a segment")
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._first, self._size = descriptor, self._next, len(header)

    def _sync_regularly(self, seconds: float) -> None:
        while not self._closing.wait(seconds):
            try:
                self._sync()
            except OSError as error:
                self._failure = error

    def _sync(self) -> None:
        with self._mutex:
            retired, self._retired = self._retired, []
            current = [os.dup(self._descriptor)] if self._dirty else []
            self._dirty = False
        try:
            for descriptor in retired + current:
                os.fsync(descriptor)
        finally:
            for descriptor in retired + current:
                os.close(descriptor)
        if retired:
            sync_directory(self._path)


class PredictionLog:
    """Reads and compacts the predictions in a folder, while writers write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, since: Mapping[str, int] | None = None) -> tuple[pa.Table, dict[str, int]]:
        """The rows after the cursor ``since`` (rows read so far of each worker), worker by worker, and the new cursor.

        Columns are those of `Prediction`, with ``request.<name>``, ``feature.<name>`` and ``status.<name>`` (int8) for its tuples;
        if segments have different ones, all of them, null where there was none.

        Raises:
            StorageError: a row is damaged, or a value does not fit its column.
        """
        from mainspring.storage.prediction_table import left, union

        cursor = dict(since or {})
        tables = []
        for worker, firsts in self._segments().items():
            for first, following in zip(firsts, [*firsts[1:], None], strict=True):
                position = max(cursor.get(worker, 0), first)
                if following is None or position < following:
                    table = self._load(worker, first, position - first)
                    cursor[worker] = position + table.num_rows
                    tables.append(left(table))
        return union(tables, f"Prediction log, {self.path}"), cursor

    def compact(self) -> int:
        """Turn sealed segments into Parquet files and return the number of files written.

        The row file goes only after the Parquet file is durable, and readers prefer Parquet: killed at any point, every row is
        there once. Two at a time take turns. A worker whose last segment is sealed finds by an empty row file where it goes on.

        Raises:
            StorageError: a row is damaged, or the disk is full.
        """
        if not self.path.exists():
            return 0
        try:
            with locked(self.path / "compact.lock"):
                return sum(self._compact(worker, firsts) for worker, firsts in self._segments().items())
        except OSError as error:
            raise StorageError(f"Prediction log, {self.path}: was not compacted ({error}). Free space on the disk or mend it.") from error

    def erase(self, chosen: Callable[[pa.Table], Mask], mentions: Callable[[pa.ChunkedArray], Mask]) -> int:
        """Erase the rows that ``chosen`` names, and return how many; the others keep their numbers.

        In those, a text or list that was served and that ``mentions`` names becomes null, with no status. Sealed segments are
        compacted first. Rows in a segment that its worker still writes stay until it is sealed: erase again then.

        Raises:
            StorageError: a row is damaged, or the disk is full.
        """
        from mainspring.storage.prediction_table import erase

        if not self.path.exists():
            return 0
        self.compact()
        try:
            with locked(self.path / "compact.lock"):
                return sum(erase(file, chosen, mentions) for file in sorted(self.path.glob("*.parquet")))
        except OSError as error:
            raise StorageError(f"Prediction log, {self.path}: not all was erased ({error}). Free space, and erase again.") from error

    def _compact(self, worker: str, firsts: list[int]) -> int:
        written = 0
        for first in firsts:
            rows, parquet = segment(self.path, worker, first, "rows"), segment(self.path, worker, first, "parquet")
            if not rows.exists():
                continue
            with _unused(rows) as unused:
                if not parquet.exists():
                    if not (unused or first < firsts[-1]) or not (bodies := read_rows(rows).bodies):
                        continue
                    segment(self.path, worker, first + len(bodies), "rows").touch()
                    self._write_parquet(worker, first)
                    written += 1
                with locked(self.path / "lock"):
                    rows.unlink()
        return written

    def _write_parquet(self, worker: str, first: int) -> None:
        import pyarrow.parquet as pq

        table = self._load(worker, first, 0)
        with replacing(segment(self.path, worker, first, "parquet")) as file:
            pq.write_table(table, file, compression="zstd")

    def _load(self, worker: str, first: int, skip: int) -> pa.Table:
        from mainspring.storage.prediction_table import read_parquet, to_table

        rows, parquet = segment(self.path, worker, first, "rows"), segment(self.path, worker, first, "parquet")
        if not parquet.exists():
            with suppress(FileNotFoundError):
                found = read_rows(rows)
                return to_table(decode(found.bodies[skip:]), found.columns, f"Prediction log, {rows}")
        return read_parquet(parquet).slice(skip)

    def _segments(self) -> dict[str, list[int]]:
        return segments(self.path) if self.path.exists() else {}


def _own(path: Path, worker: str) -> int:
    descriptor = os.open(path / f"{worker}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StorageError(f"Prediction log, {path}: worker '{worker}' is writing already. Give each process a name of its own.") from None
    return descriptor


def _resume(path: Path, worker: str) -> int:
    """The number of the worker's next row; what a kill left of a row at the end of the last segment is cut off."""
    firsts = segments(path).get(worker)
    if not firsts:
        return 0
    rows = segment(path, worker, firsts[-1], "rows")
    with suppress(FileNotFoundError):
        found = read_rows(rows)
        os.truncate(rows, found.size)
        return firsts[-1] + len(found.bodies)
    import pyarrow.parquet as pq

    return firsts[-1] + int(pq.read_metadata(segment(path, worker, firsts[-1], "parquet")).num_rows)


@contextmanager
def _unused(rows: Path) -> Iterator[bool]:
    """Whether no writer has the row file open; none will while this lasts."""
    with opened(rows, os.O_RDONLY) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
