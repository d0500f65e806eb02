"""What was answered on a device: an append-only file of checksummed records, and how far of it the server has taken."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mainspring.errors import StorageError

_HEADER = struct.Struct("<II")


class AnswerLog:
    """Records in ``path``, each a length, a CRC-32 and JSON; the position of the first that was not taken in ``path`` with ``.taken``.

    A record is on the disk when `append` returns. Half a record at the end, of an append that was killed, is cut off on opening.

    Raises:
        StorageError: the file cannot be opened, or a record before the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._taken_path = path, path.with_name(path.name + ".taken")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._size = self._whole()
            os.ftruncate(self._descriptor, self._size)
            self._taken = int(self._taken_path.read_text()) if self._taken_path.exists() else 0
        except (OSError, ValueError) as error:
            raise StorageError(f"Log of answers, {path}: cannot be opened ({error}). Name a file that can be written.") from error

    @property
    def waiting(self) -> int:
        """Bytes of records that were not taken."""
        return self._size - self._taken

    def append(self, record: dict[str, Any]) -> None:
        """Write one record.

        Raises:
            StorageError: the disk is full or fails; the file is as before.
        """
        body = json.dumps(record, separators=(",", ":")).encode()
        data = _HEADER.pack(len(body), zlib.crc32(body)) + body
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise StorageError(f"Log of answers, {self._path}: an answer was not logged ({error}). Free space or mend the disk.") from error
        self._size += len(data)

    def next(self, most: int) -> tuple[list[dict[str, Any]], int]:
        """Up to ``most`` records that were not taken, in order, and the position behind them."""
        records: list[dict[str, Any]] = []
        position = self._taken
        for record, end in self._read(position):
            records.append(record)
            position = end
            if len(records) == most:
                break
        return records, position

    def take(self, position: int) -> None:
        """Remember that the server has all records before ``position``."""
        draft = self._taken_path.with_name(self._taken_path.name + ".tmp")
        draft.write_text(str(position))
        draft.replace(self._taken_path)
        self._taken = position

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _read(self, position: int) -> Iterator[tuple[dict[str, Any], int]]:
        while position < self._size:
            length, checksum = _HEADER.unpack(os.pread(self._descriptor, _HEADER.size, position))
            body = os.pread(self._descriptor, length, position + _HEADER.size)
            if zlib.crc32(body) != checksum:
                raise StorageError(f"Log of answers, {self._path}, byte {position}: a record is damaged. Restore the file from a copy.")
            position += _HEADER.size + length
            yield json.loads(body), position

    def _whole(self) -> int:
        """Where the last whole record ends."""
        position, size = 0, os.fstat(self._descriptor).st_size
        while position + _HEADER.size <= size:
            length, _ = _HEADER.unpack(os.pread(self._descriptor, _HEADER.size, position))
            if position + _HEADER.size + length > size:
                break
            position += _HEADER.size + length
        return position
