"""The registry's rows on a PostgreSQL server, by psycopg; triggers refuse changes there as well."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mainspring.errors import MissingExtraError, RegistryError
from mainspring.model_registry.database import Execute

_FORMAT = "mainspring registry 2"
_LOOK_SECONDS = 0.1
_AFTER_FAILURE_SECONDS = 5.0
_CONNECTING: dict[str, Any] = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "application_name": "mainspring"}
_ALONE = "SELECT pg_advisory_xact_lock(hashtext('mainspring registry ' || current_schema()))"
_FOUND = "SELECT obj_description(to_regclass('decisions'), 'pg_class'), coalesce(to_regclass('versions'), to_regclass('decisions')) IS NULL"
_NEWEST = "SELECT coalesce((SELECT max(seq) FROM versions), 0), coalesce((SELECT max(seq) FROM decisions), 0)"
_TABLES = f"""
CREATE TABLE versions (seq BIGINT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, number BIGINT NOT NULL, at BIGINT NOT NULL,
    manifest TEXT NOT NULL, artifacts TEXT NOT NULL, signature TEXT NOT NULL, UNIQUE (kind, name, number));
CREATE TABLE decisions (seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, system TEXT NOT NULL, action TEXT NOT NULL, version TEXT NOT NULL,
    "by" TEXT NOT NULL, reason TEXT NOT NULL, evidence TEXT NOT NULL);
CREATE INDEX decisions_of_system ON decisions (system, seq);
COMMENT ON TABLE decisions IS '{_FORMAT}';
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%: append only', TG_TABLE_NAME; END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON versions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON decisions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


class PostgresDatabase:
    """Rows in the first schema of the connection's search path; made there on first use.

    Who only registers and decides needs no more than USAGE on the schema, SELECT and INSERT on the tables. What another process writes
    changes the token within 0.1 s. A lost connection is made anew at the next call; until then the token stays as it was, so that
    what is live goes on answering.

    Args:
        url: ``postgresql://user@host:port/database`` with libpq's own parameters; the password from ``PGPASSWORD`` or ``~/.pgpass``.
        place: the address for messages.

    Raises:
        MissingExtraError: the package ``psycopg`` is not installed.
        RegistryError: the server does not answer, or the schema holds something else.
    """

    def __init__(self, url: str, place: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtraError("A registry on PostgreSQL", "psycopg", "postgres") from error
        self.place = place
        self._url = url
        self._psycopg = psycopg
        self._lock = threading.RLock()
        self._look_at = 0.0
        self._newest: tuple[int, int] = (0, 0)
        try:
            self._connection = self._connect()
            try:
                self._make_tables()
            except BaseException:
                self._connection.close()
                raise
        except psycopg.Error as error:
            raise RegistryError(f"Registry {place}: cannot be opened ({_said(error)}). Start the server, or mend its address.") from error

    def read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows that a query gives.

        Raises:
            RegistryError: the server fails or does not answer.
        """
        try:
            with self._lock:
                found: list[tuple[Any, ...]] = self._alive().execute(_marked(query), values).fetchall()
                return found
        except self._psycopg.Error as error:
            raise RegistryError(f"Registry {self.place}: cannot be read ({_said(error)}).") from error

    @contextmanager
    def writing(self) -> Iterator[Execute]:
        """A transaction, alone among all writers by an advisory lock.

        Raises:
            RegistryError: the server fails or does not answer.
        """
        with self._lock:
            try:
                connection = self._alive()
                with connection.transaction():
                    connection.execute(_ALONE)

                    def execute(query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
                        cursor = connection.execute(_marked(query), values)
                        return cursor.fetchall() if cursor.description else []

                    yield execute
                self._look_at = 0.0
            except self._psycopg.Error as error:
                raise RegistryError(
                    f"Registry {self.place}: cannot be written ({_said(error)}). Look whether it was, and try again."
                ) from error

    def token(self) -> int:
        """From the newest row of each table, asked for after own commits, and every 0.1 s at most."""
        with self._lock:
            if time.monotonic() >= self._look_at:
                wait = _LOOK_SECONDS
                try:
                    self._newest = self._alive().execute(_NEWEST).fetchone()
                except self._psycopg.Error:
                    wait = _AFTER_FAILURE_SECONDS
                self._look_at = time.monotonic() + wait
            versions, decisions = self._newest
            return versions << 32 | decisions

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._connection.close()

    def _connect(self) -> Any:
        return self._psycopg.connect(self._url, autocommit=True, **_CONNECTING)

    def _alive(self) -> Any:
        if self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _make_tables(self) -> None:
        with self._connection.transaction():
            self._connection.execute(_ALONE)
            found, empty = self._connection.execute(_FOUND).fetchone()
            if found is None and empty:
                self._connection.execute(_TABLES)
            elif found != _FORMAT:
                raise RegistryError(
                    f"Registry {self.place}: the schema holds tables of another version of mainspring or program. Name another one: "
                    "?options=-csearch_path%3DSCHEMA"
                )


def _marked(query: str) -> str:
    return query.replace("?", "%s")


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
