"""The seam between events and the log that holds them: one numbered order, appended by many, read from any number on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mainspring.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows of one source that were appended together; ``offset`` is the number of the first, the next ones follow.

    ``next_offset`` is the number with which the log goes on, where that is not the number after the last row.
    """

    offset: int
    source: str
    batch: pa.RecordBatch
    next_offset: int | None = None

    @property
    def end(self) -> int:
        """Where reading goes on after this frame."""
        return self.offset + int(self.batch.num_rows) if self.next_offset is None else self.next_offset


class Log(Protocol):
    """Events in one total order, each with a number that grows and stays its own. Threads and processes may share a log.

    Every method raises `StorageError` when the log cannot be reached, read or written.
    """

    @property
    def place(self) -> str:
        """Where the log lies, for messages: an address without its password."""
        ...

    @property
    def end(self) -> int:
        """The number that the next event will get, appends by other processes included."""
        ...

    def behind(self, offset: int) -> int:
        """How much lies from ``offset`` to the end: events, or where the log does not count those, batches of them."""
        ...

    def append(self, source: str, batch: pa.RecordBatch) -> int:
        """Append the rows of ``batch`` as events of ``source`` and return the number of the first; no rows append nothing.

        The rows are in the log, as durably as it keeps anything, when this returns.
        """
        ...

    def read(self, offset: int = 0, until: int | None = None) -> Iterator[Frame]:
        """The events from number ``offset`` up to ``until`` or, if that is nearer, the end as it is now, in order.

        The first and last frame are sliced so that exactly these events come.

        Raises:
            StorageError: ``offset`` lies outside the log; while reading, an event is damaged, which the message names.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; nothing may be called after it."""
        ...


def pieces(frames: Iterable[Frame], rows: int) -> Iterator[list[Frame]]:
    """Frames in parts of at most ``rows`` events: large ones cut, small ones together.

    When ``frames`` raises, what came before is given first.
    """
    held: list[Frame] = []
    count = 0
    try:
        for frame in frames:
            for part in _cut(frame, rows):
                if held and count + part.batch.num_rows > rows:
                    yield held
                    held, count = [], 0
                held.append(part)
                count += part.batch.num_rows
    except StorageError:
        if held:
            yield held
        raise
    if held:
        yield held


def _cut(frame: Frame, rows: int) -> Iterator[Frame]:
    count = frame.batch.num_rows
    for start in range(0, count - rows, rows):
        yield Frame(frame.offset + start, frame.source, frame.batch.slice(start, rows))
    start = max(0, (count - 1) // rows * rows)
    yield Frame(frame.offset + start, frame.source, frame.batch.slice(start), frame.next_offset)


def check_source(place: str, source: str) -> None:
    """Hold the name of a source to what every log can store.

    Raises:
        StorageError: it is not an identifier.
    """
    if not source.isidentifier():
        raise StorageError(f"Event log, {place}: source {source!r} is not a usable name. Use letters, digits and underscores.")


def outside(place: str, offset: int, first: int, end: int) -> StorageError:
    """The error for a number that the log at ``place`` does not have, or no longer."""
    return StorageError(
        f"Event log, {place}: offset {offset} is outside {first} to {end}. "
        f"What was derived from another state of this log must be rebuilt from offset {first}."
    )
