import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mainspring.errors import RegistryError
from mainspring.model_registry import Registry

FIRST_FORMAT = """
CREATE TABLE versions (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL,
    manifest TEXT NOT NULL, artifacts TEXT NOT NULL, UNIQUE (kind, name, number));
CREATE TABLE decisions (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, system TEXT NOT NULL, action TEXT NOT NULL, version TEXT NOT NULL,
    "by" TEXT NOT NULL, reason TEXT NOT NULL, evidence TEXT NOT NULL);
CREATE TRIGGER versions_no_update BEFORE UPDATE ON versions BEGIN SELECT RAISE(ABORT, 'versions: append only'); END;
INSERT INTO versions VALUES (1, 'model', 'eta', 1, 7, '{"features": {"a": "1"}}', '{}');
PRAGMA user_version = 1;
"""


def test_another_program_or_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RegistryError, match="cannot be opened"):
        Registry(tmp_path)
    (tmp_path / "registry.sqlite").unlink()
    with closing(sqlite3.connect(tmp_path / "registry.sqlite")) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(RegistryError, match="format 99 is not 2"):
        Registry(tmp_path)


def test_a_registry_of_the_first_format_is_taken_over_with_all_it_holds(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "registry.sqlite")) as raw:
        raw.executescript(FIRST_FORMAT)
    for number in (2, 3):
        with closing(Registry(tmp_path)) as registry:
            assert registry.register("model", "eta", {}, at=number).number == number
            assert registry.version("model:eta:1").manifest == {"features": {"a": "1"}}
            assert registry.version("model:eta:1").signature == ""
    with closing(sqlite3.connect(tmp_path / "registry.sqlite")) as raw, pytest.raises(sqlite3.IntegrityError, match="append only"):
        raw.execute("UPDATE versions SET at = 0")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO versions SELECT 1, 'model', 'eta', 9, 0, '{}', '{}', ''",
        "INSERT OR REPLACE INTO versions SELECT 99, 'model', 'eta', 1, 0, '{}', '{}', ''",
        "INSERT OR REPLACE INTO decisions SELECT 1, 0, 'eta', 'hold', '', '', '', '{}'",
    ],
)
def test_rows_cannot_be_replaced(tmp_path: Path, statement: str) -> None:
    with closing(Registry(tmp_path)) as registry:
        registry.register("model", "eta", {}, at=1)
        registry.decide("eta", "hold", at=1, by="test", reason="r")
    with closing(sqlite3.connect(tmp_path / "registry.sqlite")) as raw, pytest.raises(sqlite3.IntegrityError, match="append only"):
        raw.execute(statement)
