"""Bad input and good, black box over HTTP against a real service: 4xx that names the field, or an answer; never 500."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delivery import build
from mainspring.loop.server_process import ServerProcess

GOOD: dict[str, Any] = {"drive": "x", "sent_at": "2025-02-10T12:00:00Z", "depot": "north", "km": 12.5}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    import os

    space = build(tmp_path_factory.mktemp("http") / "space")
    os.environ["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
    with ServerProcess(space.path) as server, httpx.Client(base_url=server.url) as client:
        yield client


def test_the_answer_a_person_asks_for(client: httpx.Client) -> None:
    body = client.post("/v1/delivery", json=GOOD).json()
    assert 20 < body["minutes"] < 50
    assert body["interval"]["low"] < body["minutes"] < body["interval"]["high"]
    assert body["interval"]["quantiles"] == [0.1, 0.9]
    assert (body["version"], body["answered_by"], body["variant"]) == ("model:delivery:1", "model", "champion")
    assert len(body["reasons"]) == 3
    assert "reasons" not in client.post("/v1/delivery?explain=false", json=GOOD).json()


BAD = {
    "missing field": ({key: value for key, value in GOOD.items() if key != "depot"}, "depot"),
    "unknown field": ({**GOOD, "kms": 1}, "kms"),
    "text for a number": ({**GOOD, "km": "12"}, "km"),
    "number for text": ({**GOOD, "depot": 7}, "depot"),
    "true for a number": ({**GOOD, "km": True}, "km"),
    "null where none may be": ({**GOOD, "depot": None}, "depot"),
    "below the range": ({**GOOD, "km": -1}, "km"),
    "above the range": ({**GOOD, "km": 1e300}, "km"),
    "unknown key": ({**GOOD, "depot": "moon"}, "depot"),
    "the year 9999": ({**GOOD, "sent_at": "9999-12-31T23:59:59Z"}, "sent_at"),
    "no time at all": ({**GOOD, "sent_at": "yesterday"}, "sent_at"),
    "a number for a time": ({**GOOD, "sent_at": 1735689600}, "sent_at"),
    "a list for text": ({**GOOD, "depot": ["north"]}, "depot"),
    "an object for a number": ({**GOOD, "km": {"value": 1}}, "km"),
}


@pytest.mark.parametrize(("body", "field"), BAD.values(), ids=BAD.keys())
def test_bad_fields_are_named(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/delivery", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("text", ['{"drive": "x"', "[1, 2]", '"text"', "", "nul", '{"km": NaN}', '{"km": Infinity}', "\x00", "{" * 3000])
def test_malformed_bodies_are_400(client: httpx.Client, text: str) -> None:
    assert client.post("/v1/delivery", content=text, headers={"content-type": "application/json"}).status_code == 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*GOOD, "other"]), json_values, max_size=5))
def test_no_body_gives_500(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post("/v1/delivery", content=json.dumps({**GOOD, **body}), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code == 200:
        assert math.isfinite(answer.json()["minutes"])


def test_the_edges_of_time_are_answered(client: httpx.Client) -> None:
    for at in ("2020-01-01T00:00:00Z", "2029-12-31T23:59:59.999999+00:00", "2025-02-10T12:00:00-05:00", "2025-02-10T12:00:00"):
        assert client.post("/v1/delivery", json={**GOOD, "sent_at": at}).status_code == 200


def test_an_event_is_taken_in_and_read_back(client: httpx.Client) -> None:
    import time

    event = {**GOOD, "drive": "seen", "done_at": "2025-02-10T12:40:00Z", "minutes": 40}
    reply = client.post("/v1/delivery/events/done", json=[event, {**event, "minutes": "40"}])
    assert reply.status_code == 200
    assert reply.json()["accepted"] == 1
    assert list(reply.json()["rejected"]) == ["minutes: must be a number"] or sum(reply.json()["rejected"].values()) == 1
    assert client.post("/v1/delivery/events/elsewhere", json=event).status_code == 404
    question = {**GOOD, "drive": "later", "sent_at": "2025-02-10T12:40:01Z"}
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        counted = client.post("/v1/delivery", json=question).json()
        if counted["minutes"]:
            break
    assert counted["answered_by"] == "model"


def test_it_describes_itself(client: httpx.Client) -> None:
    assert client.get("/readyz").status_code == client.get("/healthz").status_code == 200
    assert client.get("/v1/delivery").json()["champion"] == "model:delivery:1"
    assert "/v1/delivery" in client.get("/openapi.json").json()["paths"]
    assert "curl" in client.get("/docs").text
    metrics = client.get("/metrics").text
    assert 'answered_by="model"' in metrics
    assert client.get("/v1/other").status_code == 404
    assert client.put("/v1/delivery", json=GOOD).status_code == 405
