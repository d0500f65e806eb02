from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from mainspring.clock import HOUR, MINUTE, format_instant, parse_instant
from mainspring.ingestion import Contract, Ingested, Ingestor, Quarantine
from mainspring.ingestion.ingest import BATCH_ROWS
from mainspring.storage.event_log import EventLog

NOW = parse_instant("2025-03-01T12:00:00Z")
SCHEMA = {"id": str, "at": datetime, "known": datetime | None, "card": int | None, "receipt": str | None, "amount": float | None}


def source(*expect: Any) -> ms.Source:
    return ms.Source("paid", SCHEMA, event_time="at", event_id="id", known_time="known", expect=expect, ranges={"amount": (0, None)})


def fact(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"p{number}", "at": NOW - HOUR + number, **changes}


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    kinds = {"id": pa.string(), "receipt": pa.string(), "amount": pa.float64()}
    return pa.table({name: pa.array([row.get(name) for row in rows], kinds.get(name, pa.int64())) for name in SCHEMA})


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {name: format_instant(value) if name in ("at", "known") and value is not None else value for name, value in row.items()}


class Ingestion:
    def __init__(self, path: Path, *expect: Any) -> None:
        self.log = EventLog(path / "events", fsync=False)
        self.quarantine = Quarantine(path / "quarantine")
        self.ingestor = Ingestor(self.log, {"paid": source(*expect)}, self.quarantine)

    def take(self, rows: Sequence[dict[str, Any]]) -> Ingested:
        return self.ingestor.ingest("paid", table(rows), NOW)

    @property
    def ids(self) -> list[str]:
        return [one for frame in self.log.read() for one in frame.batch.column("_event_id").to_pylist()]

    @property
    def apart(self) -> list[tuple[int, str]]:
        return [(row.row, row.reason) for row in self.quarantine.read("paid")]


def test_a_fact_may_be_ahead_up_to_the_tolerance_to_the_microsecond(tmp_path):
    at = Ingestion(tmp_path, ms.Ahead("5m"))
    edge = NOW + 5 * MINUTE
    at.take([fact(0, at=edge), fact(1, at=edge + 1), fact(2, at=edge, known=NOW + 1), fact(3, at=edge, known=NOW - 1)])
    assert at.ids == ["p0", "p2"]
    assert at.apart == [(1, reason := "at: is more than 5m ahead of its arrival"), (3, reason)]


def test_rows_keep_their_numbers_whatever_set_them_apart(tmp_path):
    at = Ingestion(tmp_path, ms.Ahead("5m"), ms.Unique("receipt"))
    done = at.take([fact(0, receipt="a"), fact(1, amount=-1.0), fact(2, at=2 * NOW), fact(3), fact(4, receipt="a"), fact(5, amount=-2.0)])
    assert at.ids == ["p0", "p3"]
    assert [row for row, _ in at.apart] == [1, 2, 4, 5]
    assert sum(done.rejected.values()) == 4
    assert all(Contract(source()).check(row.values) for row in at.quarantine.read("paid") if row.row in (2, 4))


def test_large_batches_are_held_whole(tmp_path):
    at = Ingestion(tmp_path, ms.Unique("receipt"), ms.Nulls("amount", at_most=0.4))
    rows = [fact(i, receipt=str(i % (BATCH_ROWS + 10)), amount=None if i % 2 else 1.0) for i in range(BATCH_ROWS + 20)]
    done = at.take(rows)
    assert [row for row, _ in at.apart] == list(range(BATCH_ROWS + 10, BATCH_ROWS + 20))
    assert done.accepted == BATCH_ROWS + 10
    [violation] = done.violations
    assert (violation.kind, violation.column, violation.refused) == ("Nulls", "amount", False)
    assert "50,005 of 100,010 rows are null (50.0%)" in violation.message


@pytest.mark.parametrize(
    ("expectation", "rows", "message"),
    [
        (ms.Nulls("amount", at_most=0.5), [fact(0, amount=1.0), fact(1)], None),
        (ms.Nulls("amount", at_most=0.0), [], None),
        (ms.Nulls("amount", at_most=0.49), [fact(0, amount=1.0), fact(1)], "amount: 1 of 2 rows are null (50.0%), at most 49.0% may be"),
        (ms.Fresh("1h"), [fact(0), fact(-5)], None),
        (ms.Fresh("1h"), [fact(-1)], "at: the newest is of 2025-03-01T10:59:59.999999Z, over 1h ago"),
        (ms.Fresh("1h"), [], None),
        (ms.Rows(at_least=1, at_most=2), [fact(0), fact(1)], None),
        (ms.Rows(at_least=1), [], "0 rows, at least 1 were expected"),
        (ms.Rows(at_least=2), [fact(0), fact(1, amount=-1.0)], "1 rows, at least 2 were expected"),
        (ms.Rows(at_most=1), [fact(0), fact(1)], "2 rows, at most 1 were expected"),
    ],
)
def test_what_is_expected_of_a_batch_counts_its_good_rows(tmp_path, expectation, rows, message):
    at = Ingestion(tmp_path, expectation)
    assert [one.message for one in at.take(rows).violations] == ([] if message is None else [message])
    assert len(at.ids) == len([row for row in rows if row.get("amount") != -1.0])


def test_a_refused_batch_is_in_quarantine_whole_and_none_of_it_in_the_log(tmp_path):
    at = Ingestion(tmp_path, ms.Rows(at_least=5, refuse=True), ms.Nulls("card", at_most=0.1, refuse=True))
    done = at.take([fact(0), fact(1, amount=-1.0), fact(2, known=NOW)])
    assert (done.accepted, at.ids) == (0, [])
    assert [one.refused for one in done.violations] == [True, True]
    refused = "batch refused: 2 rows, at least 5 were expected; card: 2 of 2 rows are null (100.0%), at most 10.0% may be"
    assert at.apart == [(0, refused), (1, "amount: must be at least 0"), (2, refused)]


def test_nothing_is_expected_of_facts_of_a_stream_as_a_batch(tmp_path):
    at = Ingestion(tmp_path, ms.Rows(at_least=5, refuse=True), ms.Unique("receipt"))
    rows = [as_json(fact(0, receipt="a")), as_json(fact(1, receipt="a"))]
    done = at.ingestor.ingest_rows("paid", rows, NOW)
    assert (done.accepted, done.violations, [row for row, _ in at.apart]) == (1, (), [1])


def test_an_event_id_keeps_its_key_across_batches_and_restarts(tmp_path):
    Ingestion(tmp_path, ms.Fixed(["card"])).take([fact(0, card=1), fact(1, card=None)])
    at = Ingestion(tmp_path, ms.Fixed(["card"]))
    done = at.take([fact(0, card=1, amount=9.0), fact(0, card=2), fact(1, card=None), fact(1, card=1), fact(2, card=3), fact(2, card=4)])
    assert (done.accepted, [row for row, _ in at.apart]) == (3, [1, 3, 5])
    again = at.take([fact(2, card=4), fact(2, card=3)])
    assert again.accepted == 1


def test_the_key_of_an_event_may_change_its_type_with_the_declaration(tmp_path):
    at = Ingestion(tmp_path, ms.Fixed(["card"]))
    at.log.append("paid", pa.record_batch({"_event_id": ["p0"], "card": ["1"]}))
    at.log.append("paid", pa.record_batch({"_event_id": ["p1"], "card": pa.array([1], pa.int64())}))
    at.log.append("paid", pa.record_batch({"_event_id": ["p2"]}))
    assert at.take([fact(1, card=1), fact(1, card=2), fact(2, card=5)]).accepted == 2


rows = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from(["a", "b", "c", "d"]), "card": st.none() | st.integers(1, 3), "receipt": st.none() | st.sampled_from("xyz")}
    ),
    max_size=12,
)


@given(st.lists(rows, max_size=4))
def test_unique_and_fixed_agree_with_their_definition(tmp_path_factory, batches):
    at = Ingestion(tmp_path_factory.mktemp("in"), ms.Fixed(["card"]), ms.Unique("receipt"))
    first: dict[str, int | None] = {}
    for batch in batches:
        held: dict[str, str] = {}
        cards = dict(first)
        accepted = []
        for row in batch:
            id_ = row["id"]
            fixed = cards.setdefault(id_, row["card"]) == row["card"]
            unique = row["receipt"] is None or held.setdefault(row["receipt"], id_) == id_
            if fixed and unique:
                accepted.append(id_)
                first.setdefault(id_, row["card"])
        before = len(at.ids)
        done = at.take([{**row, "at": NOW - HOUR} for row in batch])
        assert at.ids[before:] == accepted
        assert done.accepted + sum(done.rejected.values()) == len(batch)
