"""Key-value store in one folder on this machine: LMDB."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from mainspring.errors import StorageError
from mainspring.storage.durable import sync_directory
from mainspring.storage.key_value import LONGEST_KEY

_READERS = 512
_KEPT_SNAPSHOTS = 16


class LmdbKeyValue:
    """Derived state in LMDB: readers never wait, one writer at a time, any number of threads and processes.

    Commits are not fsynced: the death of a process loses nothing, a power cut may lose or damage the store. It is then removed
    and rebuilt from the event log. ``map_bytes`` bounds the size of the store; the disk is used only as it fills. A process
    opens a folder at most once at a time.

    Raises:
        StorageError: the folder cannot be used, or what it holds is damaged.
    """

    def __init__(self, path: Path, *, map_bytes: int = 8 << 30) -> None:
        self.path = path
        self._map_bytes = map_bytes
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._user = os.open(path / "users.lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._user, fcntl.LOCK_SH)
            self._environment: Any = self._open(path)
            self._environment.reader_check()
        except (lmdb.Error, OSError) as error:
            raise StorageError(
                f"Key-value store {path}: cannot be opened ({error}). Make the folder writable; if its contents are damaged, remove it "
                "and rebuild it from the event log."
            ) from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none, all from one consistent state.

        Raises:
            StorageError: a key is not 1 to 511 bytes long, or the store fails.
        """
        self._check(keys)
        try:
            with self._environment.begin() as transaction:
                get = transaction.get
                return [get(key) for key in keys]
        except lmdb.Error as error:
            raise self._failed(error) from error

    @contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        """A transaction that commits at the end of its ``with`` block, or changes nothing if the block raises.

        Raises:
            StorageError: the store is full or fails.
        """
        try:
            with self._environment.begin(write=True) as transaction:
                yield _Transaction(self, transaction)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix`` and their values, in the order of the keys, as they were at the first step.

        Raises:
            StorageError: the prefix is over 511 bytes, or the store fails.
        """
        if prefix:
            self._check([prefix])
        try:
            with self._environment.begin() as transaction, transaction.cursor() as cursor:
                found = cursor.set_range(prefix) if prefix else cursor.first()
                while found and cursor.key().startswith(prefix):
                    yield cursor.item()
                    found = cursor.next()
        except lmdb.Error as error:
            raise self._failed(error) from error

    def vacuum(self) -> bool:
        """Leave nothing of what was deleted in the file; False where another process has the store open, which must close it first.

        What is left is copied row by row into a new file that takes the old one's place. No other thread may use the store.

        Raises:
            StorageError: the disk is full.
        """
        try:
            fcntl.flock(self._user, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._user, fcntl.LOCK_SH)
            return False
        draft = self.path / "vacuum.tmp"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            copy = self._open(draft)
            with self._environment.begin() as old, old.cursor() as rows, copy.begin(write=True) as new:
                for key, value in rows:
                    new.put(key, value, append=True)
            copy.sync(True)
            copy.close()
            self._environment.close()
            os.replace(draft / "data.mdb", self.path / "data.mdb")
            sync_directory(self.path)
            shutil.rmtree(draft)
            self._environment = self._open(self.path)
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"Key-value store {self.path}: was not cleaned ({error}). Free space on the disk.") from error
        fcntl.flock(self._user, fcntl.LOCK_SH)
        return True

    def close(self) -> None:
        """Let go of the folder; a second call does nothing."""
        self._environment.close()
        if self._user >= 0:
            os.close(self._user)
            self._user = -1

    def _open(self, path: Path) -> Any:
        return lmdb.open(
            str(path),
            map_size=self._map_bytes,
            sync=False,
            metasync=False,
            max_readers=_READERS,
            max_spare_txns=_KEPT_SNAPSHOTS,  # read transactions are renewed, at half the price of new ones
        )

    def _check(self, keys: Sequence[bytes]) -> None:
        lengths = list(map(len, keys))
        if lengths and not 1 <= min(lengths) <= max(lengths) <= LONGEST_KEY:
            key = next(key for key in keys if not 1 <= len(key) <= LONGEST_KEY)
            raise StorageError(f"Key-value store {self.path}: key {key[:40]!r} has {len(key)} bytes. Use 1 to {LONGEST_KEY}.")

    def _failed(self, error: lmdb.Error) -> StorageError:
        if isinstance(error, lmdb.MapFullError):
            return StorageError(f"Key-value store {self.path}: is full. Open it with a larger map_bytes.")
        return StorageError(f"Key-value store {self.path}: {error}. If its folder is damaged, remove it and rebuild it from the event log.")


class _Transaction:
    def __init__(self, store: LmdbKeyValue, transaction: Any) -> None:
        self._store = store
        self._transaction = transaction

    def get(self, key: bytes) -> bytes | None:
        self._store._check([key])
        value: bytes | None = self._transaction.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._store._check(keys)
        get = self._transaction.get
        return [get(key) for key in keys]

    def put(self, key: bytes, value: bytes) -> None:
        self._store._check([key])
        self._transaction.put(key, value)

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._store._check(keys)
        with self._transaction.cursor() as cursor:
            cursor.putmulti(zip(keys, values, strict=True))

    def delete(self, key: bytes) -> None:
        self._store._check([key])
        self._transaction.delete(key)
