from __future__ import annotations

import json
import math
import re
import socket
from typing import Any
from urllib.parse import urlparse

import httpx
import pytest
from gateway_service import SYSTEM, TRIP, arrivals, trips
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mainspring.gateway import background, describe
from mainspring.gateway.settings import Seconds, Settings, Timeouts
from mainspring.ingestion import Contract

BODY_LIMIT = 1 << 20
PATHS = {
    *("/v1/eta", "/v1/eta/rows", "/v1/eta/predictions", "/v1/eta/events/trips", "/v1/eta/events/arrivals"),
    *(
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/eta",
        "/v2/models/eta/ready",
        "/v2/models/eta/infer",
        *("/v2/models/eta/versions/{version}", "/v2/models/eta/versions/{version}/ready", "/v2/models/eta/versions/{version}/infer"),
        *("/v2/repository/index", "/v2/repository/models/eta/load", "/v2/repository/models/eta/unload"),
    ),
    *("/healthz", "/readyz", "/readyz/eta", "/metrics", "/openapi.json", "/docs"),
}


def refused(response: httpx.Response, status: int, field: str | None, message: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["field"] == field
    assert message in error["message"]
    assert error["request_id"] == response.headers["x-request-id"]


def test_an_answer_with_and_without_reasons(client):
    response = client.post("/v1/eta", json=TRIP, headers={"x-request-id": "my-1"})
    assert response.status_code == 200
    assert response.json() == {"request_id": "my-1", "minutes": 6.0, "answered_by": "rule", "version": None, "reasons": ["log_miles 1.39"]}
    assert response.headers["x-request-id"] == "my-1"
    assert response.headers["content-type"] == "application/json"
    assert client.post("/v1/eta?explain=false", json=TRIP).json()["reasons"] == []


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 65, "a\tb"])
def test_an_unsafe_request_id_is_replaced(client, given_id):
    used = client.post("/v1/eta", json=TRIP, headers={"x-request-id": given_id}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", used)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b'{"miles": 1,}', 400, "trailing comma in object (byte 12)"),
        (b"", 400, "truncated"),
        (b'{"miles": NaN}', 400, "invalid character (byte 10)"),
        (b'{"miles": Infinity}', 400, "invalid character"),
        (b'{"miles": 1e999}', 400, "out of range"),
        (b'{"zone": "\xff"}', 400, "utf-8"),
        (b'{"zone": "\\ud800"}', 400, "not JSON"),
        (b"[" * 500_000, 400, "nested too deeply"),
        (b'{"zone":' * 100_000, 400, "nested too deeply"),
        (b"[]", 400, "one JSON object"),
        (b"3", 400, "one JSON object"),
        (b"null", 400, "one JSON object"),
    ],
)
def test_a_body_that_is_no_json_object(client, content, status, message):
    refused(client.post("/v1/eta", content=content), status, None, message)


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"miles": "3"}, "miles", "must be a number, not text"),
        ({"miles": 1001}, "miles", "must be at most 1000"),
        ({"mile": 3}, "mile", "Did you mean 'miles'?"),
        ({"trip_id": ""}, "trip_id", "empty"),
        ({"starts_at": 3}, "starts_at", "ISO 8601"),
        ({"zone": "nowhere"}, "zone", "was never seen"),
        ({"seats": json.loads("[" * 300 + "]" * 300)}, "seats", "must be a whole number, not an array"),
    ],
)
def test_a_field_that_breaks_the_contract(client, changes, field, message):
    refused(client.post("/v1/eta", json=TRIP | changes), 422, field, message)


def test_query_parameters(client):
    refused(client.post("/v1/eta?explain=maybe", json=TRIP), 422, "explain", "true or false")
    refused(client.post("/v1/eta?explian=false", json=TRIP), 422, "explian", "Did you mean 'explain'?")
    refused(client.post("/v1/eta?%ff%00=1", json=TRIP), 422, "\ufffd\0", "not a known query parameter")


def test_unknown_paths_and_methods(client):
    refused(client.post("/v1/etta", json=TRIP), 404, None, "Did you mean '/v1/eta'?")
    refused(client.get("/a/b/c/d"), 404, None, "Known: /docs, /healthz")
    refused(client.post("/v1/eta/events/arrival", json={}), 404, None, "Did you mean '/v1/eta/events/arrivals'?")
    response = client.put("/v1/eta", json=TRIP)
    refused(response, 405, None, "Use GET, POST, HEAD")
    assert response.headers["allow"] == "GET, POST, HEAD"
    assert client.get("/v1/eta/events/trips").headers["allow"] == "POST"
    head = client.head("/healthz")
    assert (head.status_code, head.content) == (200, b"")


def test_content_types(client):
    for content_type in ("application/json", "application/json; charset=utf-8", "application/cloudevents+json", "APPLICATION/JSON"):
        assert client.post("/v1/eta", content=json.dumps(TRIP), headers={"content-type": content_type}).status_code == 200
    refused(client.post("/v1/eta", data={"a": "b"}), 415, None, "application/x-www-form-urlencoded")


@pytest.mark.parametrize("size", [BODY_LIMIT, BODY_LIMIT + 1, 3 * BODY_LIMIT])
@pytest.mark.parametrize("chunked", [True, False])
def test_bodies_over_the_limit(client, size, chunked):
    body = json.dumps(TRIP).encode().ljust(size)
    content: Any = (body[start : start + 100_000] for start in range(0, size, 100_000)) if chunked else body
    response = client.post("/v1/eta", content=content)
    if size <= BODY_LIMIT:
        assert response.status_code == 200
        return
    refused(response, 413, None, "larger than 1048576 bytes")
    assert client.post("/v1/eta", json=TRIP).status_code == 200


def test_a_giant_body_is_refused_by_its_head(url):
    address = urlparse(url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(b"POST /v1/eta HTTP/1.1\r\nhost: a\r\ncontent-length: 50000000\r\n\r\n{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_client_that_leaves_in_the_middle_harms_nobody(url, client):
    address = urlparse(url)
    for _ in range(3):
        with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
            connection.sendall(b"POST /v1/eta HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\n{")
    assert client.post("/v1/eta", json=TRIP).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"{"])
def test_a_body_that_never_comes(service, begun):
    with (
        background(service, settings=Settings(timeouts=Timeouts(body=Seconds(0.1)))) as url,
        socket.create_connection((urlparse(url).hostname, urlparse(url).port), timeout=5) as connection,
    ):
        connection.sendall(b"POST /v1/eta HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\n" + begun)
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")
        assert connection.recv(4096) == b""


def test_nothing_can_answer(client):
    response = client.post("/v1/eta", json=TRIP | {"zone": "down"})
    refused(response, 503, None, "no model and no rule")
    assert response.headers["retry-after"] == "1"


def test_a_bug_is_logged_with_the_request_id_and_tells_nothing(client, caplog):
    response = client.post("/v1/eta", json=TRIP | {"zone": "bug"}, headers={"x-request-id": "bug-7"})
    refused(response, 500, None, "request_id")
    assert "secret" not in response.text
    assert "bug-7" in caplog.text
    assert "ZeroDivisionError: secret detail" in caplog.text


def test_events_one_or_many(client):
    arrival = {"trip_id": "t1", "arrived_at": "2025-03-01T12:10:00Z", "minutes": 10.0}
    assert client.post("/v1/eta/events/arrivals", json=arrival).json() == {"accepted": 1, "rejected": {}}
    many = client.post("/v1/eta/events/arrivals", json=[arrival, arrival | {"minutes": "x"}, {}])
    assert many.json() == {"accepted": 1, "rejected": {"minutes: must be a number, not text": 1, "trip_id: is missing": 1}}
    assert client.post("/v1/eta/events/trips", json=[]).json() == {"accepted": 0, "rejected": {}}
    refused(client.post("/v1/eta/events/trips", json=[TRIP, 3]), 400, "[1]", "array of objects")
    refused(client.post("/v1/eta/events/trips", json="x"), 400, None, "array of objects")


def test_events_with_deep_values_are_quarantined(client):
    deep = b'{"trip_id": ' + b"[" * 800 + b"]" * 800 + b"}"
    assert client.post("/v1/eta/events/trips", content=deep).json()["accepted"] == 0


def test_health_and_readiness(client, service, monkeypatch):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    monkeypatch.setattr(service, "problem", "No version is promoted yet.")
    response = client.get("/readyz")
    refused(response, 503, None, "No version is promoted yet.")
    assert client.get("/healthz").status_code == 200


def test_metadata(client):
    body = client.get("/v1/eta").json()
    assert body["question"] == SYSTEM.question
    assert body["champion"] is None
    assert body["request"][3] == {"name": "miles", "type": "float", "nullable": False, "min": 0, "max": 1000}
    assert body["request"][1]["min"] == "2013-01-01T00:00:00Z"
    assert [feature["name"] for feature in body["features"]] == ["miles", "log_miles", "trip_id__minutes_mean"]


def test_openapi_lists_every_route_and_its_examples_hold(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) | {"/openapi.json", "/docs"} == PATHS
    schema = document["paths"]["/v1/eta"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["trip_id", "starts_at", "zone", "miles"]
    assert schema["properties"]["seats"] == {"type": ["integer", "null"], "format": "int64", "minimum": 2, "maximum": 8}
    assert client.post("/v1/eta", json=schema["examples"][0]).status_code == 200
    for source in (trips, arrivals):
        Contract(source).check(describe.example(source))


def test_the_page_is_complete_and_needs_nothing_from_elsewhere(client):
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert all(path in response.text for path in PATHS - {"/docs"})
    assert re.findall(r"(?:src|href)=\"?([^\" >]+)", response.text) == ["/openapi.json"]
    assert "--json" in response.text


def samples(client: httpx.Client) -> dict[str, float]:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line.rpartition(" ") for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_metrics_count_what_happened(client):
    before = samples(client)
    client.post("/v1/eta", json=TRIP)
    client.post("/v1/eta", json=TRIP | {"miles": -1})
    client.post("/v1/eta", json=TRIP | {"made up\n": -1})
    client.post("/v1/eta", content=b"{")
    client.get("/nothing/here")
    after = samples(client)
    for name, more in {
        'mainspring_requests_total{route="/v1/eta",system="eta",status="200",answered_by="rule",version="",variant=""}': 1,
        'mainspring_requests_total{route="/v1/eta",system="eta",status="422",answered_by="",version="",variant=""}': 2,
        'mainspring_requests_total{route="other",system="",status="404",answered_by="",version="",variant=""}': 1,
        'mainspring_rejected_total{route="/v1/eta",system="eta",reason="miles"}': 1,
        'mainspring_rejected_total{route="/v1/eta",system="eta",reason="other"}': 1,
        'mainspring_rejected_total{route="/v1/eta",system="eta",reason="malformed"}': 1,
        'mainspring_request_seconds_count{route="/v1/eta",system="eta"}': 4,
        'mainspring_request_seconds_bucket{route="/v1/eta",system="eta",le="+Inf"}': 4,
    }.items():
        assert after[name] - before.get(name, 0) == more, name
    buckets = [value for name, value in after.items() if name.startswith('mainspring_request_seconds_bucket{route="/v1/eta"')]
    assert buckets == sorted(buckets)
    assert 0 < after['mainspring_request_seconds_sum{route="/v1/eta",system="eta"}'] < math.inf


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
documents = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3))
near_misses = st.dictionaries(st.sampled_from([*TRIP, "seats", "express", "other"]), leaves).map(lambda changes: TRIP | changes)
bodies = st.binary(max_size=200) | (documents | near_misses | st.lists(near_misses, max_size=3)).map(
    lambda value: json.dumps(value).encode()
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies, st.sampled_from(["/v1/eta", "/v1/eta/events/trips", "/v1/eta/events/arrivals"]))
@example(b'{"trip_id": "t", "starts_at": "9999-12-31T23:59:59-23:59", "zone": "", "miles": 0}', "/v1/eta")
@example(b'{"trip_id": "\\u0000", "starts_at": "2025-03-01T12:00:00Z", "zone": "\\u0000", "miles": 1e-320}', "/v1/eta")
def test_whatever_is_sent_is_answered_or_refused(client, body, path):
    response = client.post(path, content=body)
    assert response.status_code in (200, 400, 422), (body, response.text)
    json.loads(response.content, parse_constant=pytest.fail)
    if response.status_code != 200:
        assert response.json()["error"]["message"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.booleans())
def test_bytes_that_are_not_http_never_end_the_server(client, url, junk, after_a_head):
    address = urlparse(url)
    head = b"POST /v1/eta HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n" if after_a_head else b""
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(head + junk)
    assert client.get("/healthz").status_code == 200
