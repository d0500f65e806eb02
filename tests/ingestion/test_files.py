from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from mainspring.clock import parse_instant
from mainspring.errors import DataError
from mainspring.ingestion import Ingestor, Quarantine, Unreadable
from mainspring.ingestion.files import ingest_file, read_lines
from mainspring.storage.event_log import EventLog

T = parse_instant("2025-03-01T12:00:00Z")
SOURCE = ms.Source("s", {"k": str, "at": datetime, "n": int | None}, event_time="at", event_id="k", expect=[ms.Rows(at_least=3)])


@pytest.fixture
def ingestor(tmp_path):
    return Ingestor(EventLog(tmp_path / "events", fsync=False), {"s": SOURCE}, Quarantine(tmp_path / "quarantine"))


def test_lines_are_values_or_say_why_not(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\r\n\n  \n[1]\nNaN\n{"a": {"b": 1, "b": 2}}\n{\n\xff\n{"a": ' + b"9" * 5_000 + b'}\n"last"')
    first, array, nan, *unreadable, last = read_lines(path)
    assert (first, array, str(nan), last) == ({"a": 1}, [1], "nan", "last")
    assert [one.reason for one in unreadable] == [
        "column 'b' is there twice",
        "the line is not JSON",
        "must be text that UTF-8 can hold",
        "the line is not JSON",
    ]
    assert unreadable[2] == Unreadable("must be text that UTF-8 can hold", "\\xff")


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "ndjson"])
def test_a_file_is_one_batch(tmp_path, ingestor, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"k": ["a", "b"], "at": pa.array([T, T], pa.timestamp("us")), "n": [1, None]}), path)
    else:
        path.write_text('{"k": "a", "at": "2025-03-01T12:00:00Z", "n": 1}\n{"k": "b", "at": "2025-03-01T12:00:00Z"}\n')
    done = ingest_file(ingestor, "s", path, T)
    assert (done.accepted, [one.message for one in done.violations]) == (2, ["2 rows, at least 3 were expected"])


def test_a_long_file_shows_progress_in_bytes(tmp_path, ingestor):
    path = tmp_path / "a.jsonl"
    line = '{"k": "a", "at": "2025-03-01T12:00:00Z"}\n'
    path.write_text(line * 25_000)
    steps: list[tuple[int, int]] = []
    assert ingest_file(ingestor, "s", path, T, lambda done, total: steps.append((done, total))).accepted == 25_000
    assert steps == [(10_000 * len(line), 25_000 * len(line)), (20_000 * len(line), 25_000 * len(line))]


def test_a_page_that_does_not_match_its_checksum_is_refused(tmp_path, ingestor):
    path = tmp_path / "a.parquet"
    given = pa.table({"k": [f"k{i}" for i in range(100)], "at": [T] * 100})
    pq.write_table(given, path, write_page_checksum=True, compression="none", use_dictionary=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"k50", b"k51"))
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        ingest_file(ingestor, "s", path, T)
