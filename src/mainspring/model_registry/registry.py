"""The registry on SQLite: append-only tables of versions and decisions, and a folder of blobs for their artifacts."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.errors import RegistryError, StorageError, did_you_mean
from mainspring.model_registry.deployment import MOVES, Decision, Deployment, fold, step
from mainspring.storage.blobs import Blobs
from mainspring.storage.durable import locked, make_directory

KINDS = ("system", "dataset", "model")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FORMAT = 1
_WAIT = 10.0
_TABLES = """
CREATE TABLE versions (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL,
    manifest TEXT NOT NULL, artifacts TEXT NOT NULL, UNIQUE (kind, name, number));
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
_VERSION = "SELECT kind, name, number, at, manifest, artifacts FROM versions"
_DECISION = 'SELECT seq, at, system, action, version, "by", reason, evidence FROM decisions'


@dataclass(frozen=True, slots=True)
class Version:
    """One registered thing; ``artifacts`` maps names to the SHA-256 of the bytes, ``manifest`` is JSON."""

    id: str
    kind: str
    name: str
    number: int
    at: int
    manifest: Mapping[str, Any]
    artifacts: Mapping[str, str]


class Registry:
    """Versions and decisions in a folder: ``registry.sqlite`` (write-ahead log, fsync at each commit) and ``blobs/``.

    Any number of processes may open the same folder to read and write, each with a `Registry` of its own made after a fork;
    one `Registry` may be shared by threads. Rows can be added but neither changed nor deleted: triggers refuse it.

    Raises:
        RegistryError: the folder holds something else or cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._blobs = Blobs(self._path / "blobs")
        self._lock = threading.RLock()
        self._writes = 0
        try:
            make_directory(self._path)
            with locked(self._path / "lock"):
                self._connection = _connect(self._path / "registry.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise RegistryError(
                f"Registry {self._path}: cannot be opened ({error}). Name a folder that holds a registry or is empty; "
                "restore a damaged one from a copy."
            ) from error

    def register(
        self, kind: str, name: str, manifest: Mapping[str, Any], artifacts: Mapping[str, bytes] | None = None, *, at: int
    ) -> Version:
        """Add the next version of ``(kind, name)``, numbered from 1, with the id ``kind:name:number``, and its artifacts.

        Raises:
            RegistryError: ``kind`` is not one of `KINDS`, the name holds other than letters, digits, ``_``, ``.`` and ``-``, the
                manifest is not JSON, or the record cannot be written.
        """
        if kind not in KINDS:
            raise RegistryError(f"Registry: kind '{kind}' is not known.{did_you_mean(kind, KINDS)}")
        if not _NAME.fullmatch(name):
            raise RegistryError(f"Registry: name {name!r} must be letters, digits, '_', '.' and '-'.")
        body = _to_json(manifest, f"manifest of {kind} '{name}'")
        try:
            hashes = {key: self._blobs.put(data) for key, data in (artifacts or {}).items()}
        except StorageError as error:
            raise RegistryError(f"Registry: artifacts of {kind} '{name}' cannot be stored. {error}") from error
        with self._writing() as connection:
            query = "SELECT coalesce(max(number), 0) + 1 FROM versions WHERE kind = ? AND name = ?"
            number = connection.execute(query, (kind, name)).fetchone()[0]
            row = (kind, name, number, at, body, json.dumps(hashes, sort_keys=True))
            connection.execute("INSERT INTO versions (kind, name, number, at, manifest, artifacts) VALUES (?, ?, ?, ?, ?, ?)", row)
        return _version(row)

    def version(self, id: str) -> Version:
        """The version with this id.

        Raises:
            RegistryError: there is none.
        """
        kind, _, rest = id.partition(":")
        name, _, number = rest.rpartition(":")
        if number.isdecimal():
            rows = self._read(f"{_VERSION} WHERE kind = ? AND name = ? AND number = ?", (kind, name, int(number)))
            if rows and f"{kind}:{name}:{rows[0][2]}" == id:
                return _version(rows[0])
        known = [f"{row[0]}:{row[1]}:{row[2]}" for row in self._read("SELECT kind, name, number FROM versions ORDER BY seq DESC LIMIT 200")]
        raise RegistryError(f"Registry {self._path}: there is no version '{id}'.{did_you_mean(id, known)}")

    def versions(self, kind: str, name: str) -> list[Version]:
        """All versions of ``(kind, name)`` by number; none is no error."""
        return [_version(row) for row in self._read(f"{_VERSION} WHERE kind = ? AND name = ? ORDER BY number", (kind, name))]

    def names(self, kind: str) -> list[str]:
        """The names under which versions of a kind are registered, the one registered last at the end."""
        return [name for (name,) in self._read("SELECT name FROM versions WHERE kind = ? GROUP BY name ORDER BY max(seq)", (kind,))]

    def artifact(self, version: Version, name: str) -> bytes:
        """The bytes of an artifact, verified against the hash in the record.

        Raises:
            RegistryError: the version has no such artifact, or its bytes are missing, altered or truncated.
        """
        if name not in version.artifacts:
            raise RegistryError(f"Version '{version.id}' has no artifact '{name}'.{did_you_mean(name, version.artifacts)}")
        try:
            return self._blobs.get(version.artifacts[name])
        except StorageError as error:
            raise RegistryError(f"Version '{version.id}', artifact '{name}': {error}") from error

    def decide(
        self, system: str, action: str, version: str = "", *, at: int, by: str, reason: str, evidence: Mapping[str, Any] | None = None
    ) -> Decision:
        """Record a decision; one of `MOVES` also moves the deployment.

        Raises:
            RegistryError: the version is unknown, the move is impossible from the present deployment (checked in the
                transaction, so of two rivals one is refused), the evidence is not JSON, or the record cannot be written.
        """
        body = _to_json(evidence or {}, f"evidence of '{action}' for system '{system}'")
        with self._writing() as connection:
            if version and self.version(version).kind != "model" and action in MOVES:
                raise RegistryError(f"System '{system}': {action} needs a model, and '{version}' is none.")
            seq = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM decisions").fetchone()[0]
            row = (seq, at, system, action, version, by, reason, body)
            step(self.deployment(system), decision := _decision(row))
            connection.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return decision

    def decisions(self, system: str, since: int = 0) -> list[Decision]:
        """The decisions about a system whose ``seq`` is above ``since``, in order."""
        return [_decision(row) for row in self._read(f"{_DECISION} WHERE system = ? AND seq > ? ORDER BY seq", (system, since))]

    def deployment(self, system: str, at: int | None = None) -> Deployment:
        """What is live, or what was live at the instant ``at``; a system without decisions is ``empty``."""
        marks = ", ".join("?" * len(MOVES))
        rows = self._read(f"{_DECISION} WHERE system = ? AND action IN ({marks}) ORDER BY seq", (system, *MOVES))
        return fold(map(_decision, rows), at)

    def token(self) -> int:
        """A number that changes whenever this or another process has written; cheap enough to ask at every request.

        From SQLite's ``PRAGMA data_version`` (commits of others) and the count of own commits.
        """
        with self._lock:
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0]) << 32 | self._writes

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._connection.close()

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise RegistryError(f"Registry {self._path}: cannot be read ({error}).") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
                self._writes += 1
            except sqlite3.Error as error:
                raise RegistryError(f"Registry {self._path}: cannot be written ({error}). Nothing was recorded; try again.") from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            guards = "".join(_GUARD.format(table=table, same=same) for table, same in _SAME.items())
            connection.executescript(f"BEGIN; {_TABLES} {guards} PRAGMA user_version = {_FORMAT}; COMMIT;")
        elif found != _FORMAT:
            raise RegistryError(
                f"Registry {file}: format {found} is not {_FORMAT}. It was made by another version of mainspring or program."
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _to_json(value: Mapping[str, Any], what: str) -> str:
    plain = _plain(value)
    try:
        text = json.dumps(plain, sort_keys=True, allow_nan=False)
        if json.loads(text) != plain:
            raise TypeError("a key is not text")
    except (TypeError, ValueError) as error:
        raise RegistryError(
            f"Registry: the {what} is not JSON ({error}). Use dicts with text keys, lists, text, finite numbers, None."
        ) from error
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _version(row: tuple[Any, ...]) -> Version:
    kind, name, number, at, manifest, artifacts = row
    return Version(f"{kind}:{name}:{number}", kind, name, number, at, json.loads(manifest), json.loads(artifacts))


def _decision(row: tuple[Any, ...]) -> Decision:
    seq, at, system, action, version, by, reason, evidence = row
    return Decision(seq, at, system, action, version, by, reason, json.loads(evidence))
