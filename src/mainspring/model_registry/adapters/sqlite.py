"""The registry's rows in a file, by SQLite: write-ahead log, fsync at each commit, triggers that refuse changes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mainspring.errors import RegistryError
from mainspring.model_registry.database import Execute
from mainspring.storage.durable import locked, make_directory

_FORMAT = 2
_WAIT = 10.0
_TABLES = """
CREATE TABLE versions (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL,
    manifest TEXT NOT NULL, artifacts TEXT NOT NULL, signature TEXT NOT NULL DEFAULT '', UNIQUE (kind, name, number));
CREATE TABLE decisions (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, system TEXT NOT NULL, action TEXT NOT NULL, version TEXT NOT NULL,
    "by" TEXT NOT NULL, reason TEXT NOT NULL, evidence TEXT NOT NULL);
CREATE INDEX decisions_of_system ON decisions (system, seq);
"""
_GUARD = """
CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, '{table}: append only'); END;
CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, '{table}: append only'); END;
CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})
    BEGIN SELECT RAISE(ABORT, '{table}: append only'); END;
"""
_SAME = {"versions": "seq = NEW.seq OR (kind = NEW.kind AND name = NEW.name AND number = NEW.number)", "decisions": "seq = NEW.seq"}
_SIGNATURES = "ALTER TABLE versions ADD COLUMN signature TEXT NOT NULL DEFAULT '';"


class SqliteDatabase:
    """Rows in ``registry.sqlite`` in a folder, which any number of processes may open, each after a fork.

    Raises:
        RegistryError: the folder holds something else or cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        self._writers = folder / "lock"
        self._lock = threading.RLock()
        self._writes = 0
        try:
            make_directory(folder)
            with locked(self._writers):
                self._connection = _connect(folder / "registry.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise RegistryError(
                f"Registry {folder}: cannot be opened ({error}). Name a folder that holds a registry or is empty; "
                "restore a damaged one from a copy."
            ) from error

    def read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows that a query gives.

        Raises:
            RegistryError: the file cannot be read.
        """
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise RegistryError(f"Registry {self.place}: cannot be read ({error}).") from error

    @contextmanager
    def writing(self) -> Iterator[Execute]:
        """A transaction, alone among all writers; they wait in a queue of the lock file, for SQLite's own way to wait is to sleep.

        Raises:
            RegistryError: the file cannot be written.
        """
        with self._lock:
            try:
                with locked(self._writers):
                    self._connection.execute("BEGIN IMMEDIATE")
                    yield lambda query, values=(): self._connection.execute(query, values).fetchall()
                    self._connection.execute("COMMIT")
                self._writes += 1
            except (OSError, sqlite3.Error) as error:
                raise RegistryError(f"Registry {self.place}: cannot be written ({error}). Nothing was recorded; try again.") from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def token(self) -> int:
        """From ``PRAGMA data_version`` (commits of others) and the count of own commits."""
        with self._lock:
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0]) << 32 | self._writes

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            guards = "".join(_GUARD.format(table=table, same=same) for table, same in _SAME.items())
            connection.executescript(f"BEGIN; {_TABLES} {guards} PRAGMA user_version = {_FORMAT}; COMMIT;")
        elif found == 1:
            connection.executescript(f"BEGIN; {_SIGNATURES} PRAGMA user_version = {_FORMAT}; COMMIT;")
        elif found != _FORMAT:
            raise RegistryError(
                f"Registry {file}: format {found} is not {_FORMAT}. It was made by another version of mainspring or program."
            )
    except BaseException:
        connection.close()
        raise
    return connection
