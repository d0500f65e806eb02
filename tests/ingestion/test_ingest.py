from __future__ import annotations

import json
from datetime import datetime

import pyarrow as pa
import pytest

from mainspring.clock import parse_instant
from mainspring.errors import DataError, StorageError
from mainspring.ingestion import Ingestor, Quarantine, Rejected
from mainspring.spec import Source

T = parse_instant("2025-03-01T12:00:00Z")
READINGS = Source(
    "readings", {"id": int, "at": datetime, "level": float | None}, event_time="at", event_id="id", ranges={"level": (0.0, 1.0)}
)


class MemoryLog:
    def __init__(self) -> None:
        self.batches: list[tuple[str, pa.RecordBatch]] = []

    @property
    def end(self) -> int:
        return sum(batch.num_rows for _, batch in self.batches)

    def append(self, source: str, batch: pa.RecordBatch) -> int:
        offset = self.end
        self.batches.append((source, batch))
        return offset


@pytest.fixture
def log():
    return MemoryLog()


@pytest.fixture
def quarantine(tmp_path):
    return Quarantine(tmp_path / "quarantine")


@pytest.fixture
def ingestor(log, quarantine):
    return Ingestor(log, {"readings": READINGS}, quarantine)


def readings(levels: list[float | None]) -> pa.Table:
    n = len(levels)
    return pa.table({"id": range(n), "at": pa.array(range(T, T + n), pa.timestamp("us")), "level": pa.array(levels, pa.float64())})


def test_a_large_table_goes_in_batches_with_progress(ingestor, log, quarantine):
    levels: list[float | None] = [0.5] * 250_000
    levels[3], levels[240_000] = 2.0, -1.0
    steps: list[tuple[int, int]] = []
    ingested = ingestor.ingest("readings", readings(levels), T, lambda done, total: steps.append((done, total)))
    assert [batch.num_rows for _, batch in log.batches] == [99_999, 100_000, 49_999]
    assert steps == [(100_000, 250_000), (200_000, 250_000), (250_000, 250_000)]
    assert (ingested.offset, ingested.accepted) == (249_998, 249_998)
    assert ingested.rejected == {"level: must be at most 1.0": 1, "level: must be at least 0.0": 1}
    assert [(one.row, one.values["id"]) for one in quarantine.read("readings")] == [(3, 3), (240_000, 240_000)]


def test_rows_from_json_and_their_quarantine(ingestor, log, quarantine):
    rows = [{"id": 1, "at": "2025-03-01T12:00:00Z"}, {"id": 2, "at": "2025-03-01T12:00:00Z", "level": 7}, "no"]
    ingested = ingestor.ingest_rows("readings", rows, T)
    assert (ingested.offset, ingested.accepted) == (1, 1)
    kept = list(quarantine.read("readings"))
    assert [(one.at, one.row, one.values) for one in kept] == [(T, 1, rows[1]), (T, 2, {"": "no"})]
    assert quarantine.counts("readings") == ingested.rejected == {"level: must be at most 1.0": 1, "must be an object": 1}
    assert log.batches[0][1].column("_event_id").type == pa.int64()


def test_nothing_accepted_appends_nothing(ingestor, log, quarantine):
    assert ingestor.ingest("readings", readings([]), T).offset == 0
    assert ingestor.ingest("readings", readings([5.0]), T).accepted == 0
    assert log.batches == []
    assert quarantine.counts("readings").total() == 1
    assert quarantine.counts("other") == {}


def test_an_unknown_source_is_named(ingestor):
    with pytest.raises(DataError, match="Did you mean 'readings'"):
        ingestor.ingest("reading", readings([]), T)


def test_a_torn_last_line_is_skipped_and_does_not_spoil_the_next(quarantine, tmp_path):
    quarantine.add("readings", [Rejected(0, "a", {"x": 1})], T)
    path = tmp_path / "quarantine" / "readings.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at": "2025-')
    quarantine.add("readings", [Rejected(1, "b", {"x": 2})], T)
    assert [one.reason for one in quarantine.read("readings")] == ["a", "b"]


def test_values_that_json_lacks_are_kept_as_text(quarantine, tmp_path):
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    values = {"a": float("nan"), "b": datetime(2025, 3, 1), "c": b"\xff", "d": 2**70, "e": "\ud800"}
    quarantine.add("readings", [Rejected(0, "a", values), Rejected(1, "b", {"x": nested})], T)
    first, second = quarantine.read("readings")
    assert first.values == {"a": "nan", "b": "2025-03-01 00:00:00", "c": "b'\\xff'", "d": 2**70, "e": "\ud800"}
    assert second.values == {"x": "<list>"}
    lines = (tmp_path / "quarantine" / "readings.jsonl").read_text().splitlines()
    assert all(json.loads(line, parse_constant=pytest.fail) for line in lines)
    while nested:  # unwound by hand: freeing it in one go recurses
        nested = nested[0]  # type: ignore[assignment]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Quarantine"):
        Quarantine(tmp_path / "file").add("readings", [Rejected(0, "a", {})], T)


def test_erased_rows_are_gone_and_the_others_are_as_they_were(quarantine):
    quarantine.add("readings", [Rejected(row, f"reason {row}", {"id": row, "level": 2.0}) for row in range(4)], T)
    before = list(quarantine.read("readings"))
    assert quarantine.erase("readings", lambda row: row.values["id"] == 2) == 1
    assert list(quarantine.read("readings")) == [row for row in before if row.row != 2]
    assert quarantine.erase("nothing", lambda row: True) == 0
    quarantine.add("readings", [Rejected(9, "again", {"id": 9})], T)
    assert len(list(quarantine.read("readings"))) == 4
