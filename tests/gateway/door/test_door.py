from __future__ import annotations

import json
import time

import httpx
import pytest
from gateway_service import TRIP

from mainspring.gateway import background
from mainspring.gateway.door.access import new_key
from mainspring.gateway.settings import Access, Cors, Limits, Log, Overload, Rate, Settings

FULL = new_key("shop", ["eta:*", "*:metrics"])
PLAIN = new_key("stall", ["eta:answer"])
ACCESS = Access(keys=[FULL.key, PLAIN.key])


@pytest.fixture
def serving(service):
    """Clients of servers under given settings."""
    opened = []

    def serve(**parts) -> httpx.Client:
        context = background(service, settings=Settings(**parts))
        client = httpx.Client(base_url=context.__enter__(), trust_env=False)
        opened.append((context, client))
        return client

    yield serve
    for context, client in opened:
        client.close()
        context.__exit__(None, None, None)


def by(secret: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}", **{name.replace("_", "-"): value for name, value in more.items()}}


def test_who_may_do_what(serving):
    client = serving(access=ACCESS)
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    for method, path in (("POST", "/v1/eta"), ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/v1/eta"), ("GET", "/not/there")):
        response = client.request(method, path, json=TRIP if method == "POST" else None)
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert "/v1/eta" not in response.text
    assert client.post("/v1/eta", json=TRIP, headers=by(FULL.secret)).status_code == 200
    assert client.get("/metrics", headers=by(FULL.secret)).status_code == 200
    assert client.post("/v1/eta", json=TRIP, headers=by(FULL.secret)).json()["reasons"]
    assert client.post("/v1/eta", json=TRIP, headers=by(PLAIN.secret)).json()["reasons"] == []
    refused = client.post("/v1/eta?explain=true", json=TRIP, headers=by(PLAIN.secret))
    assert (refused.status_code, refused.json()["error"]["field"]) == (403, "explain")
    assert client.post("/v1/eta/events/trips", json=[], headers=by(PLAIN.secret)).status_code == 403
    text = client.get("/metrics", headers=by(FULL.secret)).text
    assert 'mainspring_rejected_total{route="/v1/eta/events/trips",system="eta",reason="forbidden"} 1' in text


def test_more_than_a_client_may_ask(serving):
    client = serving(access=ACCESS, limits=Limits(rate=0.001, burst=2, clients={"shop": Rate(day=1)}))
    statuses = [client.post("/v1/eta?explain=false", json=TRIP, headers=by(PLAIN.secret)) for _ in range(3)]
    assert [one.status_code for one in statuses] == [200, 200, 429]
    assert statuses[2].headers["ratelimit-policy"] == '"rate";q=2;w=2000'
    assert 0 < int(statuses[2].headers["retry-after"]) <= 1000
    assert [client.post("/v1/eta", json=TRIP, headers=by(FULL.secret)).status_code for _ in range(2)] == [200, 429]
    assert client.get("/v1/eta", headers=by(FULL.secret)).status_code == 200


def test_limits_that_two_servers_share(serving, redis_url):
    one, other = (serving(limits=Limits(store=redis_url, day=3)) for _ in range(2))
    assert [client.post("/v1/eta", json=TRIP).status_code for client in (one, other, one, other, one)] == [200, 200, 200, 429, 429]


def test_a_deadline_that_is_over(serving):
    client = serving()
    assert client.post("/v1/eta", json=TRIP, headers={"x-deadline-ms": "0"}).status_code == 504
    assert client.post("/v1/eta", json=TRIP, headers={"x-deadline-ms": "5000"}).status_code == 200
    wrong = client.post("/v1/eta", json=TRIP, headers={"x-deadline-ms": "-5"})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (400, "x-deadline-ms")


def test_in_flight_comes_back_to_nothing_whatever_happens(serving):
    client = serving(overload=Overload(in_flight=1))
    for zone in ("a", "bug", "down", "nowhere"):
        client.post("/v1/eta", json=TRIP | {"zone": zone})
    client.post("/v1/eta", content=b"{")
    assert "mainspring_in_flight 0\n" in client.get("/metrics").text


def test_bodies_by_route(serving):
    client = serving(limits=Limits(body=1000, bodies={"/v1/eta/events/trips": 5000}))
    large = json.dumps([]).encode().ljust(2000)
    assert client.post("/v1/eta/events/trips", content=large).status_code == 200
    assert client.post("/v1/eta/events/arrivals", content=large).status_code == 413


def test_the_access_log(serving, tmp_path):
    file = tmp_path / "access.log"
    client = serving(access=ACCESS, log=Log(file=str(file)))
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    client.post("/v1/eta", json=TRIP, headers=by(FULL.secret, traceparent=parent, x_request_id="r1"))
    client.post("/v1/eta", json=TRIP, headers=by(FULL.secret[:-1]))
    until = time.monotonic() + 5
    while len(file.read_text().splitlines()) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    first, second = map(json.loads, file.read_text().splitlines())
    assert (first.pop("time")[:2], 0 < first.pop("seconds") < 1) == ("20", True)
    assert first == {
        "client": "shop",
        "system": "eta",
        "route": "/v1/eta",
        "status": 200,
        "version": "",
        "variant": "",
        "answered_by": "rule",
        "request_id": "r1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    assert (second["status"], second["client"]) == (401, "")
    assert FULL.secret[:20] not in file.read_text()


def test_successes_are_left_out_by_their_share_and_errors_never(serving, tmp_path):
    file = tmp_path / "access.log"
    client = serving(log=Log(file=str(file), successes=0.0))
    client.post("/v1/eta", json=TRIP)
    client.post("/v1/eta", content=b"{")
    until = time.monotonic() + 5
    while not file.read_text() and time.monotonic() < until:
        time.sleep(0.02)
    assert [json.loads(line)["status"] for line in file.read_text().splitlines()] == [400]


def test_pages_of_other_origins(serving):
    client = serving(access=ACCESS, cors=Cors(origins=["https://shop.example", ".stall.example"]))
    asked = {"access-control-request-method": "POST"}
    for origin, allowed in (
        ("https://shop.example", True),
        ("https://a.b.stall.example", True),
        ("http://a.stall.example", False),
        ("https://stall.example", False),
        ("https://evilstall.example", False),
        ("https://shop.example.evil", False),
        ("https://x@a.stall.example", False),
        ("null", False),
    ):
        response = client.options("/v1/eta", headers={"origin": origin, **asked})
        assert response.status_code == 204
        assert response.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert (response.headers["vary"], response.headers["access-control-max-age"]) == ("origin", "600")
    refused = client.post("/v1/eta", json=TRIP, headers={"origin": "https://shop.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://shop.example")


def test_the_page_may_load_nothing(client):
    headers = client.get("/docs").headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"


def test_quantiles_and_saturation_are_metrics(client):
    client.post("/v1/eta", json=TRIP)
    text = client.get("/metrics").text
    labels = 'route="/v1/eta",system="eta",version="",variant="",answered_by="rule",quantile="0.99"'
    assert f"mainspring_answer_seconds_recent{{{labels}}} 0.0" in text
    for name in ("in_flight", "queue_delay_seconds", "overloaded", "loop_lag_seconds", "connections"):
        assert f"\n# TYPE mainspring_{name} gauge\nmainspring_{name} " in text
