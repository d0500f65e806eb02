from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.errors import StorageError
from mainspring.schema import Field, Schema, Type
from mainspring.storage.prediction_log import Prediction, PredictionColumns, PredictionLog, PredictionWriter

Child = Callable[..., subprocess.Popen[str]]

COLUMNS = PredictionColumns(
    request=Schema((Field("country", Type.STR, True), Field("paid_at", Type.INSTANT))),
    features=Schema((Field("mean", Type.FLOAT), Field("count", Type.INT), Field("last", Type.STR), Field("open", Type.BOOL))),
)


def prediction(n: int) -> Prediction:
    return Prediction(
        request_id=f"r{n}",
        as_of=n,
        answered_at=n + 5,
        request=(None if n % 3 == 0 else "DE", 2**53 + n),
        features=(n / 3, n, f"é{n}", n % 2 == 0) if n % 4 else (None, None, None, None),
        statuses=bytes([0, 1, 2, n % 6]),
        system="abc",
        version="v1",
        variant="champion",
        answered_by="model",
        score=n / 7,
        low=None,
        high=1.0,
        reasons=tuple((f"f{i}", i / 2) for i in range(n % 3)),
        latency_us=12.5,
        shadow_version="",
        shadow_score=None,
    )


@contextmanager
def writing(path: Path, **options: object) -> Iterator[PredictionWriter]:
    with closing(PredictionWriter(path, options.pop("columns", COLUMNS), **options)) as writer:  # type: ignore[arg-type]
        yield writer


def write(path: Path, start: int, stop: int, **options: object) -> None:
    with writing(path, **options) as writer:
        for n in range(start, stop):
            writer.append(prediction(n))


def ids(table: pa.Table) -> list[int]:
    return [int(text[1:]) for text in table["request_id"].to_pylist()]


def test_a_row_comes_back_under_typed_columns(tmp_path: Path) -> None:
    write(tmp_path, 0, 5)
    table, cursor = PredictionLog(tmp_path).read()
    assert cursor == {"0": 5}
    expected = [prediction(n) for n in range(5)]
    for name in ("as_of", "answered_at", "system", "version", "variant", "answered_by", "score", "low", "high", "latency_us"):
        assert table[name].to_pylist() == [getattr(row, name) for row in expected]
    assert (table["shadow_version"].to_pylist(), table["shadow_score"].to_pylist()) == ([""] * 5, [None] * 5)
    assert table["reasons"].to_pylist() == [[{"name": name, "value": value} for name, value in row.reasons] for row in expected]
    for prefix, schema, field in (("request", COLUMNS.request, "request"), ("feature", COLUMNS.features, "features")):
        for i, name in enumerate(schema.names):
            assert table[f"{prefix}.{name}"].to_pylist() == [getattr(row, field)[i] for row in expected]
            assert table.schema.field(f"{prefix}.{name}").type == schema.arrow().field(name).type
    for i, name in enumerate(COLUMNS.features.names):
        assert table[f"status.{name}"].to_pylist() == [row.statuses[i] for row in expected]
        assert table.schema.field(f"status.{name}").type == pa.int8()
    PredictionLog(tmp_path).compact()
    assert PredictionLog(tmp_path).read()[0].equals(table)


def test_numpy_scalars_are_logged_as_numbers(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        writer.append(msgspec.structs.replace(prediction(1), features=(np.float64(0.5), np.int64(3), np.str_("x"), np.bool_(True))))
    table, _ = PredictionLog(tmp_path).read()
    assert [table[f"feature.{name}"][0].as_py() for name in COLUMNS.features.names] == [0.5, 3, "x", True]


def test_an_empty_log_has_the_fixed_columns(tmp_path: Path) -> None:
    for path in (tmp_path / "never", tmp_path):
        table, cursor = PredictionLog(path).read({"7": 3})
        assert (table.num_rows, cursor) == (0, {"7": 3})
        assert table.schema.field("score").type == pa.float64()
        assert PredictionLog(path).compact() == 0


def test_tuples_of_the_wrong_length_are_refused_and_wrong_types_named(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        for change in ({"request": ("DE",)}, {"features": (1.0,)}, {"statuses": b"\0"}):
            with pytest.raises(StorageError, match=r"request 'r1'.*Give a value for each"):
                writer.append(msgspec.structs.replace(prediction(1), **change))
        writer.append(msgspec.structs.replace(prediction(1), features=(1.0, "three", "", True)))
    with pytest.raises(StorageError, match=r"\.rows, column 'feature.count': a value is not of type int"):
        PredictionLog(tmp_path).read()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(st.tuples(st.sampled_from(["a", "b-1"]), st.integers(0, 12)), st.sampled_from(["read", "compact"])), max_size=12
    )
)
def test_a_cursor_sees_every_row_once_whatever_is_restarted_rotated_and_compacted(tmp_path_factory, steps) -> None:
    path = tmp_path_factory.mktemp("log")
    log = PredictionLog(path)
    written: dict[str, list[int]] = {}
    seen: list[int] = []
    cursor: dict[str, int] = {}
    total = 0
    for step in [*steps, "read", "compact", "read"]:
        if step == "read":
            table, cursor = log.read(cursor)
            seen += ids(table)
        elif step == "compact":
            log.compact()
        else:
            worker, count = step
            write(path, total, total + count, worker=worker, rotate_rows=5)
            written.setdefault(worker, []).extend(range(total, total + count))
            total += count
    assert sorted(seen) == list(range(total))
    everything, end = log.read()
    assert ids(everything) == [n for worker in sorted(written) for n in written[worker]]
    assert end == cursor
    assert {worker: count for worker, count in end.items() if count} == {worker: len(rows) for worker, rows in written.items() if rows}


def test_only_sealed_segments_are_compacted(tmp_path: Path) -> None:
    with writing(tmp_path, rotate_rows=2) as writer:
        for n in range(5):
            writer.append(prediction(n))
        assert PredictionLog(tmp_path).compact() == 2
        assert PredictionLog(tmp_path).compact() == 0
        writer.append(prediction(5))
        assert ids(PredictionLog(tmp_path).read()[0]) == list(range(6))
    assert PredictionLog(tmp_path).compact() == 1
    assert [path.stat().st_size for path in tmp_path.glob("*.rows")] == [0]
    write(tmp_path, 6, 7)
    assert PredictionLog(tmp_path).read({"0": 5})[1] == {"0": 7}


def test_segments_of_different_columns_are_read_as_their_union(tmp_path: Path) -> None:
    write(tmp_path, 0, 2)
    narrow = PredictionColumns(COLUMNS.request, Schema((Field("count", Type.FLOAT), Field("new", Type.STR))))
    with writing(tmp_path, columns=narrow) as writer:
        writer.append(msgspec.structs.replace(prediction(2), features=(2.5, "x"), statuses=b"\0\0"))
    for _ in range(2):
        table, _ = PredictionLog(tmp_path).read()
        assert table["feature.count"].to_pylist() == [None, 1.0, 2.5]
        assert table["feature.new"].to_pylist() == [None, None, "x"]
        assert table["status.last"].to_pylist() == [2, 2, None]
        PredictionLog(tmp_path).compact()
    text = PredictionColumns(COLUMNS.request, Schema((Field("count", Type.STR),)))
    with writing(tmp_path, columns=text) as writer:
        writer.append(msgspec.structs.replace(prediction(3), features=("x",), statuses=b"\0"))
    with pytest.raises(StorageError, match=r"feature\.count.*Give the changed column a new name"):
        PredictionLog(tmp_path).read()


def test_half_a_row_is_ignored_and_cut_when_the_writer_returns(tmp_path: Path) -> None:
    write(tmp_path, 0, 2)
    [segment] = tmp_path.glob("*.rows")
    shorter = segment.stat().st_size
    whole = segment.read_bytes()
    write(tmp_path / "other", 0, 3)
    three = next((tmp_path / "other").glob("*.rows")).read_bytes()
    assert three.startswith(whole)
    log = PredictionLog(tmp_path)
    for cut in range(shorter + 1, len(three)):
        segment.write_bytes(three[:cut])
        table, cursor = log.read()
        assert (ids(table), cursor) == ([0, 1], {"0": 2})
    write(tmp_path, 2, 3)
    assert segment.read_bytes() == whole
    assert ids(log.read()[0]) == [0, 1, 2]


def test_a_flipped_byte_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    write(tmp_path, 0, 2)
    [segment] = tmp_path.glob("*.rows")
    whole = segment.read_bytes()
    for place in range(0, len(whole), 7):
        segment.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        for act in (PredictionLog(tmp_path).read, PredictionLog(tmp_path).compact, lambda: write(tmp_path, 2, 3)):
            with pytest.raises(StorageError, match=rf"{segment.name}"):
                act()


def test_a_worker_has_one_living_writer(tmp_path: Path) -> None:
    with writing(tmp_path), writing(tmp_path, worker="1"), pytest.raises(StorageError, match="worker '0' is writing already"):
        PredictionWriter(tmp_path, COLUMNS)
    with writing(tmp_path) as writer:
        writer.close()
        with pytest.raises(StorageError, match="writer is closed"):
            writer.append(prediction(0))
    with pytest.raises(StorageError, match="not a usable name"):
        PredictionWriter(tmp_path, COLUMNS, worker="a/b")


def test_readers_follow_while_threads_write_and_segments_are_compacted(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    with writing(tmp_path, rotate_rows=50, fsync_every_us=1_000) as writer:

        def append(start: int) -> None:
            for n in range(start, start + 600):
                writer.append(prediction(n))

        def compact() -> None:
            while any(thread.is_alive() for thread in writers):
                log.compact()

        writers = [threading.Thread(target=append, args=(start,)) for start in (0, 600)]
        compactor = threading.Thread(target=compact)
        for thread in (*writers, compactor):
            thread.start()
        seen: list[int] = []
        cursor: dict[str, int] = {}
        while compactor.is_alive():
            table, cursor = log.read(cursor)
            seen += ids(table)
        seen += ids(log.read(cursor)[0])
    assert sorted(seen) == list(range(1200))
    assert ids(log.read()[0]) == seen
    assert list(tmp_path.glob("*.parquet"))


KILLED = """
import sys
from pathlib import Path
from test_prediction_log import COLUMNS, PredictionWriter, prediction

writer = PredictionWriter(Path(sys.argv[1]), COLUMNS, rotate_rows=150)
for n in range(int(sys.argv[2]), 1_000_000):
    writer.append(prediction(n))
    print(n, flush=True)
"""


def test_every_acknowledged_prediction_survives_a_kill(tmp_path: Path, child: Child) -> None:
    acknowledged, rows = -1, 0
    for wait in (20, 400):
        with child(KILLED, tmp_path, rows) as process:
            assert process.stdout is not None
            for _ in range(wait):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                acknowledged = int(line) if line.endswith("\n") else acknowledged
        table, cursor = PredictionLog(tmp_path).read()
        rows = table.num_rows
        assert rows > acknowledged
        assert ids(table) == list(range(rows))
        assert cursor == {"0": rows}
    PredictionLog(tmp_path).compact()
    assert ids(PredictionLog(tmp_path).read()[0]) == list(range(rows))
    assert [path.stat().st_size for path in tmp_path.glob("*.rows")] == [0]


COMPACTED = """
from mainspring.storage.prediction_log import PredictionLog
PredictionLog(Path(sys.argv[2])).compact()
"""


def test_compaction_killed_before_any_step_neither_loses_nor_doubles_a_row(tmp_path: Path, child: Child, kill_at: str) -> None:
    write(tmp_path, 0, 3)
    after = "0-00000000000000000003.rows"
    for step, left in ((1, {"rows"}), (2, {"rows", "parquet.tmp"}), (3, {"rows", "parquet"}), (9, {"parquet"})):
        with child(kill_at + COMPACTED, step, tmp_path) as process:
            assert process.wait() == (0 if step == 9 else -signal.SIGKILL)
        assert {path.name.partition(".")[2] for path in tmp_path.glob("0-*") if path.name != after} == left
        assert (tmp_path / after).read_bytes() == b""
        assert ids(PredictionLog(tmp_path).read()[0]) == [0, 1, 2]


FULL = """
import resource, sys
from pathlib import Path
from test_prediction_log import COLUMNS, PredictionWriter, StorageError, prediction

writer = PredictionWriter(Path(sys.argv[1]), COLUMNS)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
n = 0
try:
    while True:
        writer.append(prediction(n))
        n += 1
except StorageError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append(prediction(n))
writer.close()
print(n + 1)
"""


def test_a_full_disk_refuses_the_row_and_leaves_the_log_whole(tmp_path: Path, child: Child) -> None:
    with child(FULL, tmp_path) as process:
        output, _ = process.communicate()
    message, rows = output.splitlines()
    assert "was not logged" in message
    assert int(rows) > 10
    assert ids(PredictionLog(tmp_path).read()[0]) == list(range(int(rows)))


def erase_some(log: PredictionLog, gone: set[int]) -> int:
    return log.erase(
        lambda rows: np.isin(rows["as_of"].fill_null(-1).to_numpy(), list(gone)),
        lambda text: np.array([value == "é7" for value in text.to_pylist()], dtype=np.bool_),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gone=st.sets(st.integers(0, 39)), cursor_at=st.integers(0, 40), rotate=st.sampled_from([3, 100]))
def test_erased_rows_are_gone_and_the_others_keep_their_numbers(tmp_path_factory, gone, cursor_at, rotate) -> None:
    path = tmp_path_factory.mktemp("log")
    write(path, 0, cursor_at, rotate_rows=rotate)
    log = PredictionLog(path)
    _, cursor = log.read()
    write(path, cursor_at, 40, rotate_rows=rotate)
    assert erase_some(log, gone) == len(gone)
    assert erase_some(log, gone) == 0
    assert ids(log.read()[0]) == [n for n in range(40) if n not in gone]
    table, cursor = log.read(cursor)
    assert ids(table) == [n for n in range(cursor_at, 40) if n not in gone]
    assert cursor == {"0": 40}
    write(path, 40, 43)
    assert ids(log.read(cursor)[0]) == [40, 41, 42]


def test_a_text_that_was_served_to_another_becomes_null_without_status(tmp_path: Path) -> None:
    write(tmp_path, 0, 10)
    log = PredictionLog(tmp_path)
    assert erase_some(log, {3}) == 1
    rows = {row["as_of"]: row for row in log.read()[0].to_pylist()}
    assert (rows[7]["feature.last"], rows[7]["status.last"], rows[7]["feature.count"]) == (None, None, 7)
    assert (rows[6]["feature.last"], rows[6]["status.last"]) == ("é6", 2)


def test_a_worker_goes_on_after_sealed_segments_without_reading_them(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    PredictionLog(tmp_path).compact()
    code = """
import sys
from pathlib import Path
from mainspring.schema import Schema
from mainspring.storage.prediction_log import PredictionColumns, PredictionWriter

PredictionWriter(Path(sys.argv[1]), PredictionColumns(Schema(()), Schema(()))).close()
print("pyarrow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout == "False\n"
    write(tmp_path, 3, 5)
    assert PredictionLog(tmp_path).compact() == 1
    assert ids(PredictionLog(tmp_path).read()[0]) == list(range(5))


def test_what_a_living_worker_writes_stays_until_it_is_sealed(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    with writing(tmp_path) as writer:
        writer.append(prediction(5))
        assert erase_some(log, {5}) == 0
        writer.append(prediction(6))
        assert ids(log.read()[0]) == [5, 6]
    assert erase_some(log, {5}) == 1
    assert ids(log.read()[0]) == [6]
