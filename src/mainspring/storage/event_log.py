"""The first record: a durable log of events in segment files, appended by several processes and read from any offset.

A segment is named by the number of its first event; what a frame looks like is told in `mainspring.storage.frames`.
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.errors import StorageError
from mainspring.storage import frames
from mainspring.storage.durable import locked, make_directory, opened, replacing, sync_directory, write_all
from mainspring.storage.log import Frame, check_source, outside

if TYPE_CHECKING:
    import pyarrow as pa

_LARGEST_FRAME = 1 << 30
_NAME = re.compile(r"\d{20}\.log")


@dataclass(frozen=True, slots=True)
class _Place:
    """Start of a frame: the segment's first event, the byte in the segment, the frame's first event."""

    base: int
    position: int
    offset: int


class EventLog:
    """Events numbered 0, 1, 2, ... in the order in which they were appended.

    Every append is fsynced before it returns: it survives a power cut. With ``fsync=False`` it survives the death of the
    process, not of the machine. Threads and processes may share a log. Half a frame left at the end by a killed append is cut
    off by whoever opens the log or appends next, and ignored by those who read meanwhile; ``healed`` counts the bytes that this
    object cut. A reader may see an event moments before its append returns. A new segment begins where the next frame would
    pass ``segment_bytes``.

    Raises:
        StorageError: on opening, the folder cannot be written or the last segment is damaged.
    """

    def __init__(self, path: Path, *, segment_bytes: int = 64 << 20, fsync: bool = True) -> None:
        self.path = path
        self._folder = str(path)
        self._lock = str(path / "lock")
        self.healed = 0
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        try:
            make_directory(path)
            with locked(self._lock):
                bases = self._bases()
                if not bases:
                    self._create(0)
                self._tail = self._last_read = self._heal(_start(bases[-1] if bases else 0))
        except OSError as error:
            raise StorageError(f"Event log, {path}: cannot be opened ({error}). Make the folder writable.") from error

    @property
    def place(self) -> str:
        """The folder."""
        return self._folder

    def append(self, source: str, batch: pa.RecordBatch) -> int:
        """Append the rows of ``batch`` as events of ``source`` and return the number of the first; no rows append nothing.

        All of them are in the log when this returns, none when it raises.

        Raises:
            StorageError: the disk is full or fails, the source's name is not an identifier, the batch is over 1 GiB.
        """
        check_source(self.place, source)
        try:
            with locked(self._lock):
                place = self._heal(self._tail)
                self._tail = self._append(place, source, batch) if batch.num_rows else place
                return place.offset
        except OSError as error:
            raise StorageError(
                f"Event log, {self.path}: {batch.num_rows} events of '{source}' were not appended ({error}). "
                "Free space on the disk or mend it, and append them again."
            ) from error

    def read(self, offset: int = 0, until: int | None = None) -> Iterator[Frame]:
        """The events from number ``offset`` up to ``until`` or, if that is nearer, the end as it is now, in order.

        The first and last frame are sliced so that exactly these events come.

        Raises:
            StorageError: ``offset`` lies outside the log; while reading, a frame is damaged or a segment is gone.
        """
        end = self.end
        if not 0 <= offset <= end:
            raise outside(self.place, offset, 0, end)
        return self._read(offset, end if until is None else min(until, end))

    @property
    def end(self) -> int:
        """The number that the next event will get, appends by other processes included."""
        place, _ = self._advance(self._tail)
        self._tail = place
        return place.offset

    def behind(self, offset: int) -> int:
        """How many events lie from number ``offset`` to the end."""
        return self.end - offset

    def close(self) -> None:
        """Nothing is held open."""

    def erase(self, chosen: frames.Chosen) -> int:
        """Erase the events that ``chosen`` names, and return how many there were; every other event keeps its number.

        Segments are rewritten one by one, each whole or not at all, while appends wait: killed at any point, the same call again
        finishes. Readers see a segment as it was or as it is.

        Raises:
            StorageError: a frame is damaged, or the disk is full.
        """
        gone, last = 0, -1
        try:
            while (base := next((one for one in self._bases() if one > last), None)) is not None:
                with locked(self._lock):
                    self._tail = self._heal(self._tail)
                    gone += self._erase(base, chosen)
                last = base
        except OSError as error:
            raise StorageError(f"Event log, {self.path}: not all was erased ({error}). Free space on the disk, and erase again.") from error
        return gone

    def _erase(self, base: int, chosen: frames.Chosen) -> int:
        path = self._segment(base)
        Path(f"{path}.tmp").unlink(missing_ok=True)
        with _reading(path, base) as descriptor:
            changed = {position: frame for position, frame in frames.without(path, descriptor, base, chosen) if frame is not None}
            if changed:
                size = os.fstat(descriptor).st_size
                with replacing(Path(path)) as file:
                    written = 0
                    for position, (frame, _) in changed.items():
                        file.write(os.pread(descriptor, position - written, written))
                        file.write(frame)
                        written = position + len(frame)
                    file.write(os.pread(descriptor, size - written, written))
        return sum(count for _, count in changed.values())

    def _append(self, place: _Place, source: str, batch: pa.RecordBatch) -> _Place:
        buffers = frames.encode(source, batch, place.offset)
        length = sum(len(buffer) for buffer in buffers)
        if length > _LARGEST_FRAME:
            raise StorageError(f"Event log, {self.path}: a batch of {length} bytes is over 1 GiB. Append it in smaller batches.")
        if place.position and place.position + length > self._segment_bytes:
            place = self._roll(place)
        self._write(place, buffers)
        return _Place(place.base, place.position + length, place.offset + batch.num_rows)

    def _read(self, offset: int, stop: int) -> Iterator[Frame]:
        place = self._place(offset) if offset < stop else self._tail
        while place.offset < stop:
            path = self._segment(place.base)
            with _reading(path, place.offset) as descriptor:
                hopped = frames.hop(path, descriptor, place.position, place.offset, max(offset, place.offset))
                place = _Place(place.base, hopped.position, hopped.offset)
                size = os.fstat(descriptor).st_size
                while place.offset < stop and place.position < size:
                    header = frames.read_header(path, descriptor, place.position, place.offset)
                    payload = frames.read_payload(path, descriptor, place.position, header)
                    yield from _frames(payload, place.offset, max(offset - place.offset, 0), min(stop - place.offset, header.rows))
                    place = _Place(place.base, place.position + frames.HEADER_BYTES + header.length, place.offset + header.rows)
                    self._last_read = place
            if place.offset < stop and (place.offset == place.base or not os.path.exists(self._segment(place.offset))):
                raise frames.damaged(path, place.position, place.offset, "the file ends too early")
            place = _start(place.offset)

    def _place(self, offset: int) -> _Place:
        """The nearest known start of a frame at or before ``offset``."""
        bases = self._bases()
        after = bisect.bisect_right(bases, offset)
        if after == 0:
            raise StorageError(f"Event log, {self.path}: the segment with event {offset} is gone. Restore it from a copy.")
        base = bases[after - 1]
        known = [place for place in (self._tail, self._last_read) if place.base == base and place.offset <= offset]
        return max([_start(base), *known], key=lambda place: place.offset)

    def _advance(self, place: _Place) -> tuple[_Place, int]:
        """The end of the log as seen from ``place``, and the torn bytes behind it."""
        while True:
            path = self._segment(place.base)
            with _reading(path, place.offset) as descriptor:
                if os.fstat(descriptor).st_size < place.position:  # an append that another process saw was taken back
                    place = _start(place.base)
                hopped = frames.hop(path, descriptor, place.position, place.offset)
            place = _Place(place.base, hopped.position, hopped.offset)
            if hopped.offset == place.base or not os.path.exists(self._segment(hopped.offset)):
                return place, hopped.torn
            place = _start(hopped.offset)

    def _heal(self, place: _Place) -> _Place:
        """The end of the log, with torn bytes cut off; only under the lock."""
        place, torn = self._advance(place)
        if torn:
            with opened(self._segment(place.base), os.O_RDWR) as descriptor:
                os.ftruncate(descriptor, place.position)
            self.healed += torn
        return place

    def _roll(self, place: _Place) -> _Place:
        if not self._fsync:
            with opened(self._segment(place.base), os.O_RDWR) as descriptor:
                os.fsync(descriptor)
        self._create(place.offset)
        return _start(place.offset)

    def _create(self, base: int) -> None:
        with opened(self._segment(base), os.O_RDWR | os.O_CREAT) as descriptor:
            os.fsync(descriptor)
        sync_directory(self.path)

    def _write(self, place: _Place, buffers: list[Any]) -> None:
        with opened(self._segment(place.base), os.O_RDWR) as descriptor:
            try:
                write_all(descriptor, buffers, place.position)
                if self._fsync:
                    os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, place.position)
                raise

    def _bases(self) -> list[int]:
        return sorted(int(name[:-4]) for name in os.listdir(self.path) if _NAME.fullmatch(name))

    def _segment(self, base: int) -> str:
        return f"{self._folder}/{base:020d}.log"


def _frames(payload: frames.Payload, offset: int, begin: int, end: int) -> Iterator[Frame]:
    """Positions ``begin`` to ``end`` of the frame at ``offset``: a run of rows and the erased events after it at a time."""
    source, batch, erased = payload
    if not len(erased):
        yield Frame(offset + begin, source, batch.slice(begin, end - begin))
        return
    left = np.setdiff1d(np.arange(len(batch) + len(erased)), erased)
    row, last = left.searchsorted([begin, end]).tolist()
    left = left[row:last]
    runs = np.split(left, np.flatnonzero(np.diff(left) > 1) + 1) if len(left) else []
    starts = [*(int(run[0]) for run in runs), end]
    if starts[0] > begin:
        yield Frame(offset + begin, source, batch.slice(0, 0), offset + starts[0])
    for run, start, following in zip(runs, starts, starts[1:], strict=False):
        yield Frame(offset + start, source, batch.slice(row, len(run)), offset + following)
        row += len(run)


def _start(base: int) -> _Place:
    return _Place(base, 0, base)


@contextmanager
def _reading(path: str, offset: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"Event log: {path}, with event {offset}, cannot be read ({error}). Restore it from a copy.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
