"""Quarantine: rejected rows, kept with the reason until someone mends them. How they get out: `mainspring.ingestion.retry`."""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mainspring.clock import format_instant, parse_instant
from mainspring.errors import StorageError
from mainspring.ingestion.contract import Rejected
from mainspring.storage.durable import locked, make_directory, opened, replacing, sync_directory, write_all

_CHECKSUM = re.compile(rb', "crc": (\d+)\}\n?$')
_MARK = b'{"mark"'
_MARKS = {"pending": {"lines"}, "settled": {"accepted"}, "erased": set[str]()}


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A rejected row as it was kept: when, its number in what was ingested, why, and its values in JSON's types.

    ``line`` is its line in the source's file, from 1, and never changes.
    """

    at: int
    row: int
    reason: str
    values: dict[str, Any]
    line: int


@dataclass(frozen=True, slots=True)
class Pending:
    """Lines on their way out: their facts have these event ids and are, if at all, in the event log from ``offset`` on."""

    lines: tuple[int, ...]
    event_ids: tuple[str | int, ...]
    offset: int


@dataclass(slots=True)
class _Marks:
    accepted: set[int] = field(default_factory=set)
    reasons: dict[int, str] = field(default_factory=dict)
    pending: Pending | None = None
    damaged: int = 0


class Quarantine:
    """One file of JSON lines per source in a folder, only ever appended to; every append is on the disk before it returns.

    A line is a row with a checksum, or a mark that says what became of earlier lines. Threads and processes may share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def sources(self) -> list[str]:
        """The sources that ever had a row rejected."""
        return sorted(path.stem for path in self._folder.glob("*.jsonl"))

    def add(self, source: str, rejected: Sequence[Rejected], at: int) -> None:
        """Keep rejected rows of a source, seen at the instant ``at``.

        Raises:
            StorageError: the disk is full or fails; then none of them is kept.
        """
        if rejected:
            self._append(source, [_line(one, at) for one in rejected], f"{len(rejected)} rejected rows")

    def begin(self, source: str, pending: Pending) -> None:
        """Mark lines as on their way out, before their facts are appended to the event log."""
        body = {"mark": "pending", "lines": pending.lines, "event_ids": pending.event_ids, "offset": pending.offset}
        self._append(source, [_checked(json.dumps(body))], "a mark")

    def settle(self, source: str, accepted: Sequence[int], reasons: Mapping[int, str]) -> None:
        """Mark lines as accepted, and others as staying for a new reason; whatever was pending is so no more."""
        body = {"mark": "settled", "accepted": list(accepted), "reasons": list(reasons.items())}
        self._append(source, [_checked(json.dumps(body))], "a mark")

    def read(self, source: str) -> Iterator[Quarantined]:
        """The rows of a source that are still here, in the order in which they came; damaged lines are left out.

        Raises:
            StorageError: the file cannot be read.
        """
        marks = self._marks(source)
        for number, line in self._lines(source):
            row = None if line.startswith(_MARK) or number in marks.accepted else _row(line, number)
            if row is not None:
                yield Quarantined(row.at, row.row, marks.reasons.get(number, row.reason), row.values, number)

    def counts(self, source: str) -> Counter[str]:
        """Number of rows by reason."""
        return Counter(row.reason for row in self.read(source))

    def kept(self, source: str) -> Iterator[Quarantined]:
        """Every row of a source that its file holds, also those that were let in since, with the reasons they first had.

        Raises:
            StorageError: the file cannot be read.
        """
        for number, line in self._lines(source):
            row = None if line.startswith(_MARK) else _row(line, number)
            if row is not None:
                yield row

    def erase(self, source: str, chosen: Callable[[Quarantined], bool]) -> int:
        """Erase the rows among `kept` that ``chosen`` names, and return how many; damaged lines go as well, and no line's number changes.

        Raises:
            StorageError: the file cannot be written.
        """
        path = self._path(source)
        if not path.exists():
            return 0
        gone = 0
        try:
            with locked(self._folder / "lock"), replacing(path) as file:
                for number, line in self._lines(source):
                    is_mark = line.startswith(_MARK)
                    row = None if is_mark else _row(line, number)
                    named = row is not None and chosen(row)
                    gone += named
                    lost = named or (row is None if not is_mark else _mark(line) is None)
                    file.write(_checked(json.dumps({"mark": "erased"})).encode() if lost else line)
        except OSError as error:
            raise StorageError(f"Quarantine, {path}: rows were not erased ({error}). Make the folder writable, and erase again.") from error
        return gone

    def damaged(self, source: str) -> int:
        """Number of lines that do not match their checksum or were left half written by a killed process."""
        return sum(_mark(line) is None if line.startswith(_MARK) else _row(line, number) is None for number, line in self._lines(source))

    def pending(self, source: str) -> Pending | None:
        """The lines that a killed retry left on their way out."""
        return self._marks(source).pending

    def retrying(self) -> AbstractContextManager[None]:
        """Hold off other retries, of threads and processes."""
        make_directory(self._folder)
        return locked(self._folder / "retry.lock")

    def _marks(self, source: str) -> _Marks:
        marks = _Marks()
        for _, line in self._lines(source):
            mark = _mark(line) if line.startswith(_MARK) else None
            if mark is None or mark["mark"] == "erased":
                continue
            if mark["mark"] == "pending":
                marks.pending = Pending(tuple(mark["lines"]), tuple(mark["event_ids"]), mark["offset"])
            else:
                marks.pending = None
                marks.accepted.update(mark["accepted"])
                marks.reasons.update(dict(mark["reasons"]))
        return marks

    def _lines(self, source: str) -> Iterator[tuple[int, bytes]]:
        """The lines with their numbers, up to the end as it is now."""
        path = self._path(source)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for number, line in enumerate(file, 1):
                    yield number, line
                    size -= len(line)
                    if size <= 0:
                        return
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"Quarantine, {path}: cannot be read ({error}). Make it a readable file.") from error

    def _path(self, source: str) -> Path:
        return self._folder / f"{source}.jsonl"

    def _append(self, source: str, lines: Sequence[str], what: str) -> None:
        path = self._path(source)
        try:
            make_directory(self._folder)
            with locked(self._folder / "lock"):
                is_new = not path.exists()
                _append(path, "".join(lines).encode())
                if is_new:
                    sync_directory(self._folder)
        except OSError as error:
            raise StorageError(
                f"Quarantine, {path}: {what} could not be written ({error}). Free space on the disk or make the folder writable."
            ) from error


def _append(path: Path, data: bytes) -> None:
    """All of the data at the end of the file, on a line of its own, or none of it."""
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        size = os.fstat(descriptor).st_size
        ends_a_line = not size or os.pread(descriptor, 1, size - 1) == b"\n"
        try:
            write_all(descriptor, [data if ends_a_line else b"\n" + data], size)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise


def _line(rejected: Rejected, at: int) -> str:
    head = {"at": format_instant(at), "row": rejected.row, "reason": rejected.reason}
    try:
        return _checked(json.dumps({**head, "values": _plain(rejected.row_values)}, default=str))
    except (RecursionError, ValueError):
        described = {name: f"<{type(value).__name__}>" for name, value in rejected.row_values.items()}
        return _checked(json.dumps({**head, "values": described}))


def _checked(body: str) -> str:
    return f'{body[:-1]}, "crc": {zlib.crc32(body.encode())}}}\n'


def _body(line: bytes) -> dict[str, Any] | None:
    """The object of a line, None where it is damaged."""
    found = _CHECKSUM.search(line)
    if found is not None:
        line = line[: found.start()] + b"}"
        if zlib.crc32(line) != int(found[1]):
            return None
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _row(line: bytes, number: int) -> Quarantined | None:
    body = _body(line)
    try:
        return None if body is None else Quarantined(parse_instant(body["at"]), body["row"], body["reason"], body["values"], number)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _mark(line: bytes) -> dict[str, Any] | None:
    body = _body(line)
    return body if body is not None and body.keys() >= _MARKS.get(body["mark"], {""}) else None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with NaN and infinities, which JSON does not have, as text."""
    return {name: str(value) if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}
