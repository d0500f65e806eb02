"""Tracking: every training leaves a record in SQLite that survives the death of its process, at microseconds a step.

Steps are kept in memory and written by a thread four times a second, each batch one transaction with fsync. A killed process
loses what it logged since the last batch: a quarter of a second, or as long as one write to a busy database takes. What was
written before survives a power cut as well.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.clock import Clock, SystemClock
from mainspring.errors import StorageError, did_you_mean
from mainspring.storage.blobs import FolderBlobs
from mainspring.storage.durable import locked, make_directory
from mainspring.training.tracking.running import Running
from mainspring.training.tracking.runs import Curve, Run

FLUSH_SECONDS = 0.25
"""How long a step may lie in memory before it is written."""
BUFFERED_STEPS = 100_000
"""Steps that are kept in memory at most; while the database cannot be written, those beyond are lost, and the run says so."""

_FORMAT = 1
_WAIT = 10.0
_TABLES = {
    "runs": "seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, at INTEGER NOT NULL, parent TEXT, body TEXT NOT NULL",
    "facts": "run INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, value NOT NULL",
    "steps": "run INTEGER NOT NULL, name TEXT NOT NULL, step INTEGER NOT NULL, value REAL, at INTEGER NOT NULL",
    "ends": "run INTEGER PRIMARY KEY, at INTEGER NOT NULL, status TEXT NOT NULL, seconds REAL NOT NULL, error TEXT NOT NULL",
}
_INDEXES = (
    "CREATE INDEX facts_of_run ON facts (run); CREATE INDEX steps_of_run ON steps (run); CREATE INDEX runs_of_parent ON runs (parent);"
)
_GUARD = """
CREATE TRIGGER {0}_no_update BEFORE UPDATE ON {0} BEGIN SELECT RAISE(ABORT, '{0}: append only'); END;
CREATE TRIGGER {0}_no_delete BEFORE DELETE ON {0} BEGIN SELECT RAISE(ABORT, '{0}: append only'); END;
"""
_RUNS = (
    "SELECT r.seq, r.id, r.name, r.at, r.parent, r.body, e.at, e.status, e.seconds, e.error FROM runs r LEFT JOIN ends e ON e.run = r.seq"
)
_log = logging.getLogger(__name__)


class Tracker:
    """Records of trainings in a folder: ``runs.sqlite`` (write-ahead log), ``blobs/``, and a lock file per run under way.

    Any number of processes may write at once, each with a `Tracker` of its own made after a fork; threads may share one.

    Raises:
        StorageError: the folder holds something else or cannot be used.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path = Path(path)
        self.clock = clock or SystemClock()
        self.blobs = FolderBlobs(self.path / "blobs")
        self._lock = threading.RLock()
        self._steps: deque[tuple[int, str, int, float, int]] = deque()
        self._failing = False
        self._writer: threading.Thread | None = None
        self._closing = threading.Event()
        try:
            make_directory(self.path / "under-way")
            with locked(self.path / "lock"):
                self._connection = _connect(self.path / "runs.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"Runs in {self.path}: cannot be opened ({error}). Name a folder that holds runs or is empty.") from error

    def start(
        self, name: str, *, parameters: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None, seed: int | None = None,
        parent: str | None = None, price_per_hour: float | None = None,
    ) -> Running:  # fmt: skip
        """Begin a run of a system or search; parameters and data are JSON. Nothing that goes wrong with the record is raised."""
        return Running(
            self, name, {"parameters": parameters or {}, "data": data or {}, "seed": seed, "price_per_hour": price_per_hour}, parent
        )

    def runs(self, name: str | None = None, *, parent: str | None = None) -> list[Run]:
        """The runs of that name and parent, or all, oldest first."""
        chosen = {column: value for column, value in (("r.name", name), ("r.parent", parent)) if value is not None}
        where = " AND ".join(f"{column} = ?" for column in chosen)
        return self._read_runs(f" WHERE {where}" if where else "", tuple(chosen.values()))

    def run(self, id: str) -> Run:
        """The run with this id, or the only one whose id begins so.

        Raises:
            StorageError: there is none, or more than one.
        """
        found = self._read_runs(" WHERE substr(r.id, 1, length(?)) = ?", (id, id)) if id else []
        if len(found) == 1:
            return found[0]
        known = [row[0] for row in self._read("SELECT id FROM runs ORDER BY seq DESC LIMIT 50")]
        reason = did_you_mean(id, known) if not found else f" It begins {len(found)} ids: give more of it."
        raise StorageError(f"Runs in {self.path}: there is no run '{id}'.{reason}")

    def curves(self, run: Run) -> dict[str, Curve]:
        """The steps of a run by metric, each as it was logged; steps still in the memory of a run under way are not among them."""
        query = "SELECT s.name, s.step, s.value, s.at FROM steps s JOIN runs r ON r.seq = s.run WHERE r.id = ? ORDER BY s.rowid"
        found: dict[str, list[tuple[int, float | None, int]]] = defaultdict(list)
        for name, step, value, at in self._read(query, (run.id,)):
            found[name].append((step, value, at))
        return {name: _curve(rows) for name, rows in sorted(found.items())}

    def environment(self, run: Run) -> dict[str, Any]:
        """Python, machine and packages of a run; empty when they could not be recorded."""
        return dict(json.loads(self.blobs.get(run.environment))) if run.environment else {}

    def artifact(self, run: Run, name: str) -> bytes:
        """The bytes of a run's artifact, verified.

        Raises:
            StorageError: it has no such artifact, or its bytes are missing or altered.
        """
        if name not in run.artifacts:
            raise StorageError(f"Run '{run.id}' has no artifact '{name}'.{did_you_mean(name, run.artifacts)}")
        return self.blobs.get(run.artifacts[name])

    def has_artifact(self, run: Run, name: str) -> bool:
        """Whether the bytes of an artifact are kept here, and not only named."""
        return self.blobs.has(run.artifacts[name])

    def adopt(self, run: Run, curves: Mapping[str, Curve], environment: Mapping[str, Any], files: Iterable[bytes]) -> None:
        """Add a whole run that ended elsewhere, with the bytes of its artifacts.

        Raises:
            StorageError: it is here already, or cannot be written; nothing was then.
        """
        kept = self.blobs.put(json.dumps(dict(environment), sort_keys=True).encode()) if environment else ""
        for data in files:
            self.blobs.put(data)
        body = {name: getattr(run, name) for name in ("parameters", "data", "code", "seed", "price_per_hour")} | {"environment": kept}
        facts = [("metric", name, repr(value)) for name, value in run.metrics.items()]
        facts += [(kind, *one) for kind, of in (("artifact", run.artifacts), ("note", run.notes)) for one in of.items()]
        with self.writing() as connection:
            row = (run.id, run.name, run.started_at, run.parent, json.dumps(body, sort_keys=True))
            number = connection.execute("INSERT INTO runs (id, name, at, parent, body) VALUES (?, ?, ?, ?, ?)", row).lastrowid
            connection.executemany("INSERT INTO facts VALUES (?, ?, ?, ?)", [(number, *fact) for fact in facts])
            for name, curve in curves.items():
                steps = zip(curve.step.tolist(), curve.value.tolist(), curve.at.tolist(), strict=True)
                connection.executemany("INSERT INTO steps VALUES (?, ?, ?, ?, ?)", [(number, name, *step) for step in steps])
            end = (number, run.ended_at or run.started_at, run.status, run.seconds or 0.0, run.error)
            connection.execute("INSERT INTO ends VALUES (?, ?, ?, ?, ?)", end)

    def flush(self) -> None:
        """Write the steps that are still in memory.

        Raises:
            StorageError: they cannot be written; they stay in memory.
        """
        with self._lock:
            batch = [self._steps.popleft() for _ in range(len(self._steps))]
            try:
                if batch:
                    with self.writing() as connection:
                        connection.executemany("INSERT INTO steps VALUES (?, ?, ?, ?, ?)", batch)
                self._failing = False
            except StorageError:
                self._steps.extendleft(reversed(batch))
                self._failing = True
                raise

    def close(self) -> None:
        """Write what is left and let go of the database."""
        self._closing.set()
        if self._writer is not None:
            self._writer.join()
        try:
            self.flush()
        finally:
            with self._lock:
                self._connection.close()

    def keep(self, run: int, name: str, step: int, value: float) -> None:
        """Put a step of a run, by its number here, in memory for the writer.

        Raises:
            StorageError: the memory is full, and the database cannot be written.
        """
        if len(self._steps) >= BUFFERED_STEPS:
            if self._failing:
                raise StorageError(f"Runs in {self.path}: cannot be written, {BUFFERED_STEPS} steps wait, and newer ones are lost.")
            self.flush()
        self._steps.append((run, name, int(step), float(value), self.clock.now()))
        if self._writer is None:
            self._start_writer()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction of this process's thread, alone among all writers.

        Raises:
            StorageError: it cannot be written; nothing was.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StorageError(f"Runs in {self.path}: cannot be written ({error}). Free space or mend the folder.") from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _start_writer(self) -> None:
        with self._lock:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="mainspring runs", daemon=True)
                self._writer.start()

    def _write(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            try:
                self.flush()
            except StorageError as error:
                _log.warning("Steps wait in memory. %s", error)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"Runs in {self.path}: cannot be read ({error}).") from error

    def _read_runs(self, where: str, values: tuple[Any, ...]) -> list[Run]:
        rows = self._read(f"{_RUNS}{where} ORDER BY r.seq", values)
        dead = [row[0] for row in rows if row[7] is None and not self._alive(row[1])]
        if dead:  # some may have come to their end since the first look
            rows = self._read(f"{_RUNS}{where} ORDER BY r.seq", values)
        facts: dict[tuple[int, str], dict[str, Any]] = defaultdict(dict)
        query = f"SELECT f.run, f.kind, f.name, f.value FROM facts f JOIN runs r ON r.seq = f.run{where} ORDER BY f.rowid"
        for number, kind, name, value in self._read(query, values):
            facts[number, kind][name] = value
        return [_run(row, facts, killed=row[0] in dead) for row in rows]

    def _alive(self, id: str) -> bool:
        """Whether a process holds the run's lock, which it loses however it dies."""
        try:
            descriptor = os.open(self.path / "under-way" / id, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            tables = "".join(f"CREATE TABLE {name} ({columns}); {_GUARD.format(name)}" for name, columns in _TABLES.items())
            connection.executescript(f"BEGIN; {tables} {_INDEXES} PRAGMA user_version = {_FORMAT}; COMMIT;")
        elif found != _FORMAT:
            raise StorageError(f"Runs in {file}: format {found} is not {_FORMAT}. They were written by another version or program.")
    except BaseException:
        connection.close()
        raise
    return connection


def _curve(rows: list[tuple[int, float | None, int]]) -> Curve:
    step, value, at = zip(*rows, strict=True)
    values = np.array([np.nan if one is None else one for one in value], dtype=np.float64)
    return Curve(np.array(step, dtype=np.int64), values, np.array(at, dtype=np.int64))


def _run(row: tuple[Any, ...], facts: Mapping[tuple[int, str], Mapping[str, Any]], *, killed: bool) -> Run:
    number, id, name, at, parent, body, ended_at, status, seconds, error = row
    metrics = {key: float(value) for key, value in facts.get((number, "metric"), {}).items()}
    artifacts, notes = (dict(facts.get((number, kind), {})) for kind in ("artifact", "note"))
    status = status or ("killed" if killed else "running")
    ends = {"status": status, "ended_at": ended_at, "seconds": seconds, "error": error or ""}
    return Run(
        id=id, name=name, started_at=at, parent=parent, **json.loads(body), **ends, metrics=metrics, artifacts=artifacts, notes=notes
    )
