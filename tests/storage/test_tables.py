from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.errors import StorageError
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables

Child = Callable[..., subprocess.Popen[str]]


def rows(start: int, count: int) -> pa.RecordBatch:
    return pa.record_batch(
        {"n": pa.array(range(start, start + count), pa.int64()), "_event_id": [f"e{n}" for n in range(start, start + count)]}
    )


def numbers(tables: Tables, source: str) -> list[int]:
    return [n for file in tables.files(source) for n in pq.ParquetFile(file).read()["n"].to_pylist()]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 9)), st.none(), st.integers(0, 60)), max_size=15))
def test_tables_hold_each_event_before_the_position_once(tmp_path_factory, steps) -> None:
    path = tmp_path_factory.mktemp("state")
    log, tables = EventLog(path / "log", fsync=False), Tables(path / "tables")
    events: list[str] = []
    position = 0
    for step in steps:
        if isinstance(step, tuple):
            source, count = step
            log.append(source, rows(len(events), count))
            events += [source] * count
        else:
            position = len(events) if step is None else max(position, min(step, len(events)))
            assert tables.catch_up(log, step) == position == tables.position
        for source in ("a", "b"):
            assert numbers(tables, source) == [n for n in range(position) if events[n] == source]
    assert tables.files("never") == []


def test_duckdb_reads_the_files_in_the_order_of_the_log(tmp_path: Path) -> None:
    log, tables = EventLog(tmp_path / "log", fsync=False), Tables(tmp_path / "tables")
    for start in (0, 10):
        log.append("payments", rows(start, 10))
        tables.catch_up(log)
    assert len(tables.files("payments")) == 2
    with duckdb.connect() as connection:
        relation = connection.execute("SELECT * FROM read_parquet(?)", [tables.files("payments")])
        assert [column[0] for column in relation.description] == ["n", "_event_id"]
        assert relation.fetchall() == [(n, f"e{n}") for n in range(20)]


def test_a_large_catch_up_becomes_several_parts(tmp_path: Path) -> None:
    log, tables = EventLog(tmp_path / "log", fsync=False), Tables(tmp_path / "tables")
    for start in range(0, 500_000, 50_000):
        log.append("a", pa.record_batch({"n": range(start, start + 50_000)}))
    assert tables.catch_up(log) == 500_000
    assert [pq.read_metadata(file).num_rows for file in tables.files("a")] == [200_000, 200_000, 100_000]
    assert numbers(tables, "a") == list(range(500_000))


def test_a_column_may_come_but_not_change_its_type(tmp_path: Path) -> None:
    log, tables = EventLog(tmp_path / "log", fsync=False), Tables(tmp_path / "tables")
    log.append("a", pa.record_batch({"n": [1]}))
    log.append("a", pa.record_batch({"n": [2], "new": ["x"]}))
    tables.catch_up(log)
    assert pq.ParquetFile(tables.files("a")[0]).read().to_pylist() == [{"n": 1, "new": None}, {"n": 2, "new": "x"}]
    log.append("b", pa.record_batch({"n": [1]}))
    log.append("b", pa.record_batch({"n": ["x"]}))
    with pytest.raises(StorageError, match="source 'b', events 2 to 4: a column changed its type"):
        tables.catch_up(log)
    assert tables.position == 2


def test_tables_of_another_log_and_a_damaged_position_name_the_mend(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "tables")
    log = EventLog(tmp_path / "log", fsync=False)
    log.append("a", rows(0, 3))
    tables.catch_up(log)
    with pytest.raises(StorageError, match=r"hold 3 events, the log .* only 0\. Remove"):
        tables.catch_up(EventLog(tmp_path / "other"))
    (tmp_path / "tables" / "position.json").write_text("{")
    with pytest.raises(StorageError, match="rebuilt from the event log"):
        tables.catch_up(log)


CATCH_UP = """
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables
folder = Path(sys.argv[2]).parent
Tables(folder / "tables").catch_up(EventLog(folder / "log", fsync=False))
"""


def test_a_catch_up_killed_before_any_step_is_taken_up_by_the_next(tmp_path: Path, child: Child, kill_at: str) -> None:
    log, tables = EventLog(tmp_path / "log", fsync=False), Tables(tmp_path / "tables")
    log.append("a", rows(0, 2))
    tables.catch_up(log)
    log.append("a", rows(2, 2))
    log.append("b", rows(4, 2))
    for step in (2, 3, 6):  # before the part of a is there, before the part of b is begun, before the position is there
        with child(kill_at + CATCH_UP, step, tmp_path / "tables") as process:
            assert process.wait() == -signal.SIGKILL
        assert tables.position == 2
        assert (numbers(tables, "a"), numbers(tables, "b")) == ([0, 1], [])
        log.append("a", rows(log.end, 1))
    assert tables.catch_up(log) == 9
    assert (numbers(tables, "a"), numbers(tables, "b")) == ([0, 1, 2, 3, 6, 7, 8], [4, 5])
    assert len(list((tmp_path / "tables").glob("*/*"))) == 3


def test_erased_rows_are_gone_and_the_tables_go_on(tmp_path: Path) -> None:
    log, tables = EventLog(tmp_path / "log", fsync=False), Tables(tmp_path / "tables")
    for start in (0, 10, 20):
        log.append("a", rows(start, 10))
        tables.catch_up(log)
    parts = tables.files("a")
    assert tables.erase("a", lambda table: table["n"].to_numpy() < 12) == 12
    assert tables.erase("a", lambda table: table["n"].to_numpy() < 12) == 0
    assert tables.erase("none", lambda table: table["n"].to_numpy() < 12) == 0
    assert (tables.files("a"), tables.position) == (parts, 30)
    log.append("a", rows(30, 2))
    tables.catch_up(log)
    assert numbers(tables, "a") == list(range(12, 32))
