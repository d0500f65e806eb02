"""Registries to hold the contract against: where they are, and how their rows are reached behind their backs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from s3_server import BUCKET, alter

ON = {
    "sqlite": "CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "postgres": "ALTER TABLE {table} ENABLE TRIGGER append_only",
}
OFF = {"sqlite": "DROP TRIGGER {table}_no_update", "postgres": "ALTER TABLE {table} DISABLE TRIGGER append_only"}


@dataclass(frozen=True)
class Place:
    """``rows`` is a folder or the address of a schema, ``alter`` writes other bytes under the name of a blob, or removes it."""

    kind: str
    address: str
    rows: str
    alter: Callable[[str, bytes | None], None]

    def execute(self, statement: str) -> None:
        """Run a statement past the registry."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(Path(self.rows) / "registry.sqlite")) as raw, raw:
                raw.execute(statement)
        else:
            with psycopg.connect(self.rows) as raw:
                raw.execute(statement.encode())

    def forge(self, statement: str, table: str = "versions") -> None:
        """Run a statement as an owner of the database who has taken the guards away."""
        self.execute(OFF[self.kind].format(table=table))
        self.execute(statement)
        self.execute(ON[self.kind].format(table=table))


def alter_file(folder: Path, digest: str, data: bytes | None) -> None:
    """Write other bytes into the file of a blob, or with None remove it."""
    (file,) = folder.rglob(digest)
    if data is None:
        file.unlink()
    else:
        file.write_bytes(data)


def make_place(kind: str, folder: Path, ask: Callable[[str], Any]) -> Place:
    """A new and empty place: ``folder``, ``postgres`` or ``postgres-s3``; ``ask`` gives a fixture's value."""
    if kind == "folder":
        return Place("sqlite", str(folder), str(folder), partial(alter_file, folder / "blobs"))
    name, url = f"r{abs(hash(str(folder)))}", ask("postgres_url")
    with psycopg.connect(url) as raw:
        raw.execute(f"CREATE SCHEMA {name}".encode())
    rows = f"{url}&options=-csearch_path%3D{name}"
    if kind == "postgres":
        return Place("postgres", f"{rows}#{folder}", rows, partial(alter_file, folder))
    endpoint = ask("s3")
    address = f"{rows}#s3://{BUCKET}/{name}/artifacts?endpoint={endpoint}"
    return Place("postgres", address, rows, lambda digest, data: alter(endpoint, f"{name}/artifacts/{digest}", data))
