from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from mainspring.clock import HOUR, parse_instant
from mainspring.errors import DataError
from mainspring.ingestion import Contract
from mainspring.loop.load import traffic
from mainspring.spec import Source
from mainspring.storage.workspace import Workspace
from mainspring.systems.eta import system

NOW = parse_instant("2025-03-01T12:00:00Z")
orders = Source(
    "orders",
    {"order_id": int, "at": datetime, "zone": ZoneInfo, "shop": str, "items": int, "price": float, "gift": bool | None},
    event_time="at",
    event_id="order_id",
    ranges={"items": (1, 9), "price": (0, None)},
    allowed={"shop": ["north", "south"]},
)


@pytest.mark.parametrize("source", [orders, system.request], ids=lambda source: source.name)
def test_made_requests_hold_to_the_contract_and_are_the_same_for_a_seed(source):
    made = traffic.synthetic(source, 500, 7, NOW)
    rows = [Contract(source).check(msgspec.json.decode(body)) for body in made]
    assert len({row[source.event_id] for row in rows}) == 500
    assert all(NOW - HOUR <= row[source.event_time] <= NOW for row in rows)
    assert made == traffic.synthetic(source, 500, 7, NOW)
    assert made != traffic.synthetic(source, 500, 8, NOW)


def test_made_values_spread_over_what_is_declared():
    rows = [msgspec.json.decode(body) for body in traffic.synthetic(orders, 500, 0, NOW)]
    assert {row["shop"] for row in rows} == {"north", "south"}
    assert {row["items"] for row in rows} == set(range(1, 10))
    assert {row["gift"] for row in rows} == {True, False, None}


def test_the_lines_of_a_file_are_bodies_and_instants_are_their_event_times(tmp_path):
    file = tmp_path / "bodies.jsonl"
    file.write_text('{"at": "2025-01-01T00:00:01Z"}\n\n{"at": "2025-01-01T00:00:00Z"}\n')
    bodies = traffic.from_file(file)
    assert [at - parse_instant("2025-01-01") for at in traffic.instants(bodies, orders)] == [1_000_000, 0]


@pytest.mark.parametrize(("text", "wrong"), [("", "there is no body"), ('{"a": 1}\n{', "line 2: it is not JSON")])
def test_a_file_of_no_bodies_is_refused(tmp_path, text, wrong):
    file = tmp_path / "bodies.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=wrong):
        traffic.from_file(file)
    with pytest.raises(DataError, match="cannot be read"):
        traffic.from_file(tmp_path / "none")


def test_bodies_without_times_are_refused():
    with pytest.raises(DataError, match="no valid 'at'"):
        traffic.instants([b"{}"], orders)


def test_a_workspace_that_has_answered_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="no request has been answered yet"):
        traffic.answered(Workspace(tmp_path), orders)
