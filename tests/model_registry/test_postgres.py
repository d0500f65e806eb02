import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from registries import Place, make_place

from mainspring.errors import MissingExtraError, RegistryError
from mainspring.model_registry import Registry


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return make_place("postgres", tmp_path, request.getfixturevalue)


@pytest.fixture
def registry(place: Place) -> Iterator[Registry]:
    with closing(Registry(place.address)) as registry:
        yield registry


def test_a_role_that_may_only_read_and_add_needs_no_more(place: Place) -> None:
    Registry(place.address).close()
    with psycopg.connect(place.rows, autocommit=True) as raw:
        schema = raw.execute("SELECT current_schema()").fetchone()
        assert schema is not None
        role = f"writer_{schema[0]}"
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT USAGE ON SCHEMA {schema[0]} TO {role}",
            f"GRANT SELECT, INSERT ON versions, decisions TO {role}",
        ):
            raw.execute(statement.encode())
    with closing(Registry(place.address.replace("user=postgres", f"user={role}"))) as registry:
        registry.register("model", "eta", {}, {"model.txt": b"tree"}, at=1)
        registry.decide("eta", "promote", "model:eta:1", at=2, by="me", reason="r")
        assert registry.deployment("eta").champion == "model:eta:1"
    with psycopg.connect(place.rows.replace("user=postgres", f"user={role}"), autocommit=True) as raw:
        for statement in (
            "UPDATE versions SET at = 0",
            "DELETE FROM decisions",
            "TRUNCATE versions",
            "ALTER TABLE versions DISABLE TRIGGER ALL",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                raw.execute(statement.encode())


def test_the_tables_cannot_be_emptied(registry: Registry, place: Place) -> None:
    with pytest.raises(psycopg.Error, match="append only"):
        place.execute("TRUNCATE versions, decisions")


def test_a_lost_connection_is_made_anew_and_the_token_stays_meanwhile(registry: Registry, place: Place) -> None:
    registry.register("model", "eta", {}, at=1)
    token = registry.token()
    with psycopg.connect(place.rows) as raw:
        raw.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mainspring'")
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.versions("model", "eta")
    assert registry.token() == token
    assert registry.register("model", "eta", {}, at=2).number == 2
    assert registry.token() != token


def test_a_server_that_is_down_is_named_without_the_password(tmp_path: Path) -> None:
    for address in ("postgresql://me:secret@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db?user=me&password=secret"):
        with pytest.raises(RegistryError, match=r"127.0.0.1:1/db.* cannot be opened.* Start the server") as refused:
            Registry(f"{address}#{tmp_path}")
        assert "secret" not in str(refused.value)


def test_tables_of_another_program_are_refused(place: Place) -> None:
    place.execute("CREATE TABLE decisions (what TEXT)")
    with pytest.raises(RegistryError, match="tables of another version of mainspring or program"):
        Registry(place.address)


def test_without_the_package_the_extra_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mainspring\[postgres\]'"):
        Registry(place.address)
    with pytest.raises(RegistryError, match="where are the artifacts"):
        Registry("postgresql://me:secret@host/db")
    with pytest.raises(RegistryError, match="none of a registry"):
        Registry("mysql://host/db#folder")
