"""A run under way: what a training calls while it goes on."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from mainspring.clock import Clock
from mainspring.errors import MainspringError, StorageError
from mainspring.storage.blobs import FolderBlobs
from mainspring.training.tracking.environment import code_version, environment

_log = logging.getLogger(__name__)


class Book(Protocol):
    """Where runs are recorded: what a run under way needs of a `Tracker`."""

    path: Path
    clock: Clock
    blobs: FolderBlobs

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection whose writes are one transaction."""
        ...

    def keep(self, run: int, name: str, step: int, value: float) -> None:
        """Take a step into memory, to be written soon."""
        ...

    def flush(self) -> None:
        """Write the steps that lie in memory."""
        ...


class Running:
    """A run under way, ended by leaving ``with``: finished, or failed with the error that passes through.

    What goes wrong with the record itself never stops the training: it is logged and put into ``problems``.
    """

    def __init__(self, tracker: Book, name: str, body: Mapping[str, Any], parent: str | None) -> None:
        self.id = os.urandom(6).hex()
        self.problems: list[str] = []
        self._tracker, self._lock, self._number = tracker, -1, -1
        self._started = time.perf_counter()
        with self._tolerant():
            self._lock = os.open(tracker.path / "under-way" / self.id, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            kept = tracker.blobs.put(json.dumps(environment(), sort_keys=True).encode())
            text = json.dumps({**body, "code": dict(code_version()), "environment": kept}, sort_keys=True)
            with tracker.writing() as connection:
                row = (self.id, name, tracker.clock.now(), parent, text)
                done = connection.execute("INSERT INTO runs (id, name, at, parent, body) VALUES (?, ?, ?, ?, ?)", row)
                self._number = int(done.lastrowid or 0)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Log values at a step, by names such as ``validation/mae``; NaN and infinities are kept. Takes microseconds."""
        try:
            for name, value in values.items() if self._number > 0 else ():
                self._tracker.keep(self._number, name, step, value)
        except (StorageError, TypeError, ValueError) as error:
            self._problem(error)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record final figures, by names such as ``test/mae``; the last one of a name counts."""
        self._facts("metric", {name: repr(float(value)) for name, value in values.items()})

    def artifact(self, name: str, data: bytes) -> None:
        """Keep a file or plot by the hash of its bytes."""
        with self._tolerant():
            self._facts("artifact", {name: self._tracker.blobs.put(data)})

    def refer(self, artifacts: Mapping[str, str]) -> None:
        """Name files that another store keeps, such as the registry, by the SHA-256 of their bytes."""
        self._facts("artifact", artifacts)

    def note(self, notes: Mapping[str, str]) -> None:
        """Record what else is to be said, as text by name; the last one of a name counts."""
        self._facts("note", notes)

    def end(self, status: str, error: str = "") -> None:
        """Record the end and all steps before it; `Run.seconds` is the time since the start."""
        seconds = time.perf_counter() - self._started
        with self._tolerant():
            if self._number > 0:
                self._tracker.flush()
                with self._tracker.writing() as connection:
                    row = (self._number, self._tracker.clock.now(), status, seconds, error)
                    connection.execute("INSERT INTO ends VALUES (?, ?, ?, ?, ?)", row)
            if self._lock >= 0:
                (self._tracker.path / "under-way" / self.id).unlink()
                os.close(self._lock)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end("finished" if error is None else "failed", "" if error is None else f"{type(error).__name__}: {error}")

    def _facts(self, kind: str, values: Mapping[str, Any]) -> None:
        with self._tolerant():
            if self._number > 0:
                with self._tracker.writing() as connection:
                    rows = [(self._number, kind, name, value) for name, value in values.items()]
                    connection.executemany("INSERT INTO facts VALUES (?, ?, ?, ?)", rows)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except (MainspringError, OSError, sqlite3.Error, TypeError, ValueError) as error:
            self._problem(error)

    def _problem(self, error: Exception) -> None:
        if str(error) not in self.problems:
            self.problems.append(str(error))
            _log.warning("Run %s is not recorded whole. %s", self.id, error)
