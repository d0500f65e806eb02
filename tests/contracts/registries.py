"""Registries to hold the contract against: where they are, and how their rows are reached behind their backs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

ON = {
    "sqlite": "CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "postgres": "ALTER TABLE {table} ENABLE TRIGGER append_only",
}
OFF = {"sqlite": "DROP TRIGGER {table}_no_update", "postgres": "ALTER TABLE {table} DISABLE TRIGGER append_only"}


@dataclass(frozen=True)
class Place:
    """``rows`` is a folder or the address of a schema, ``artifacts`` the folder that holds the artifacts."""

    kind: str
    address: str
    rows: str
    artifacts: Path

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

    def blob(self, digest: str) -> Path:
        """The file that holds a blob."""
        (found,) = self.artifacts.rglob(digest)
        return found


def make_place(kind: str, folder: Path, ask: Callable[[str], Any]) -> Place:
    """A new and empty place: ``folder``, ``postgres`` or ``postgres-s3``; ``ask`` gives a fixture's value."""
    if kind == "folder":
        return Place("sqlite", str(folder), str(folder), folder / "blobs")
    name, url = f"r{abs(hash(str(folder)))}", ask("postgres_url")
    with psycopg.connect(url) as raw:
        raw.execute(f"CREATE SCHEMA {name}".encode())
    rows = f"{url}&options=-csearch_path%3D{name}"
    if kind == "postgres":
        return Place("postgres", f"{rows}#{folder}", rows, folder)
    endpoint, buckets = ask("s3")
    (buckets / name).mkdir()
    return Place("postgres", f"{rows}#s3://{name}/artifacts?endpoint={endpoint}", rows, buckets / name)
