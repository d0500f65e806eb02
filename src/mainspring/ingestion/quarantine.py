"""Quarantine: rejected rows, kept with the reason until someone mends or drops them."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.clock import format_instant, parse_instant
from mainspring.errors import StorageError
from mainspring.ingestion.contract import Rejected
from mainspring.storage.durable import locked, replacing


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A rejected row as it was kept: when, its number in what was ingested, why, and its values in JSON's types."""

    at: int
    row: int
    reason: str
    values: dict[str, Any]


class Quarantine:
    """One file of JSON lines per source in a folder; every `add` is on the disk before it returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, source: str, rejected: Sequence[Rejected], at: int) -> None:
        """Keep rejected rows of a source, seen at the instant ``at``.

        Raises:
            StorageError: the disk is full or fails.
        """
        if not rejected:
            return
        lines = [_line(one, at) for one in rejected]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(self._folder / "lock"):
                self._append(self._path(source), "".join(lines).encode())
        except OSError as error:
            raise StorageError(
                f"Quarantine, {self._path(source)}: {len(lines)} rejected rows could not be written ({error}). "
                "Free space on the disk or make the folder writable."
            ) from error

    def read(self, source: str) -> Iterator[Quarantined]:
        """The rows of a source in the order in which they came; a line that a killed process left half written is skipped."""
        path = self._path(source)
        if not path.exists():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    body = json.loads(line)
                except json.JSONDecodeError:
                    continue
                yield Quarantined(parse_instant(body["at"]), body["row"], body["reason"], body["values"])

    def counts(self, source: str) -> Counter[str]:
        """Number of rows by reason."""
        return Counter(row.reason for row in self.read(source))

    def erase(self, source: str, chosen: Callable[[Quarantined], bool]) -> int:
        """Erase the rows of a source that ``chosen`` names, and return how many; half-written lines go as well.

        Raises:
            StorageError: the file cannot be written.
        """
        path = self._path(source)
        if not path.exists():
            return 0
        try:
            with locked(self._folder / "lock"):
                rows = list(self.read(source))
                kept = [row for row in rows if not chosen(row)]
                with replacing(path) as file:
                    for row in kept:
                        head = {"at": format_instant(row.at), "row": row.row, "reason": row.reason}
                        file.write((json.dumps({**head, "values": row.values}) + "\n").encode())
        except OSError as error:
            raise StorageError(f"Quarantine, {path}: rows were not erased ({error}). Make the folder writable, and erase again.") from error
        return len(rows) - len(kept)

    def _path(self, source: str) -> Path:
        return self._folder / f"{source}.jsonl"

    def _append(self, path: Path, data: bytes) -> None:
        is_new = not path.exists()
        with path.open("ab+") as file:
            if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                data = b"\n" + data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self._folder)


def _line(rejected: Rejected, at: int) -> str:
    head = {"at": format_instant(at), "row": rejected.row, "reason": rejected.reason}
    try:
        return json.dumps({**head, "values": _plain(rejected.row_values)}, default=str) + "\n"
    except (RecursionError, ValueError):
        described = {name: f"<{type(value).__name__}>" for name, value in rejected.row_values.items()}
        return json.dumps({**head, "values": described}) + "\n"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with NaN and infinities, which JSON does not have, as text."""
    return {name: str(value) if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}


def _ends_a_line(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
