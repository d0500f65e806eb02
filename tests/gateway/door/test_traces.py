"""Spans of requests as a collector hears them: a server of OTLP over HTTP that decodes what comes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_service import TRIP, RuleService
from hypothesis import given
from hypothesis import strategies as st

from delivery import build
from mainspring.gateway import background
from mainspring.gateway.door.identity import Identity
from mainspring.gateway.door.traces import sampled
from mainspring.gateway.settings import Settings, Traces
from mainspring.loop.server_process import ServerProcess

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROW = {"drive": "a", "sent_at": "2025-02-10T12:00:00Z", "depot": "north", "km": 12.5}
HEX = st.integers(0, 2**128 - 1).map("{:032x}".format)


@given(HEX, st.floats(0, 1))
def test_a_trace_begun_here_is_sampled_by_its_id_as_the_sdk_does(trace_id: str, ratio: float) -> None:
    sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling", reason="opentelemetry-sdk is not installed")
    theirs = sampling.TraceIdRatioBased(ratio).should_sample(None, int(trace_id, 16), "one").decision.is_sampled()
    assert (sampled(Identity("r", trace_id, trace_id[:16]), ratio).flags == "01") is theirs


@pytest.mark.parametrize("flags", ["00", "01"])
def test_the_caller_decides_where_it_has_a_span(flags: str) -> None:
    identity = Identity("r", TRACE, "1" * 16, CALLER, flags)
    assert all(sampled(identity, ratio).flags == flags for ratio in (0.0, 1.0))


class Collector:
    """What came, as plain spans with their attributes."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

        spans: list[Any] = []
        self.spans, self.services = spans, set[str]()
        services = self.services

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                    services.update(pair.value.string_value for pair in one.resource.attributes if pair.key == "service.name")
                    spans.extend(span for scope in one.scope_spans for span in scope.spans)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    for name in ("opentelemetry.exporter.otlp.proto.http", "opentelemetry.proto.collector.trace.v1.trace_service_pb2"):
        pytest.importorskip(name, reason="the OTLP exporter is not installed")
    made = Collector()
    yield made
    made.close()


def test_a_request_and_its_phases_come_as_one_trace(collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([part for part in sys.path if part]))
    (tmp_path / "gateway.toml").write_text(f'[traces]\nendpoint = "{collector.endpoint}"\n')
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "r1"}
    began = time.time_ns()
    with ServerProcess(build(tmp_path / "space").path, settings=tmp_path / "gateway.toml") as server:
        reply = httpx.post(f"{server.url}/v1/delivery", json=ROW, headers=headers, trust_env=False)
        assert reply.status_code == 200, reply.text
        unsampled = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
        assert httpx.post(f"{server.url}/v1/delivery", json=ROW, headers=unsampled, trust_env=False).headers["traceparent"][-2:] == "00"
        httpx.post(f"{server.url}/v1/delivery/rows", json={"rows": [ROW, ROW, ROW]}, trust_env=False)
    ended = time.time_ns()
    own = {span.name: span for span in collector.spans if span.trace_id.hex() == TRACE}
    assert set(own) == {"POST /v1/delivery", "features", "model", "log"}
    request = own.pop("POST /v1/delivery")
    assert request.parent_span_id.hex() == CALLER
    assert reply.headers["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    told = attributes(request)
    wanted = {"mainspring.system": "delivery", "mainspring.request_id": "r1", "mainspring.answered_by": "model"}
    wanted |= {"mainspring.version": "model:delivery:1", "mainspring.variant": "champion", "http.route": "/v1/delivery"}
    assert wanted.items() <= told.items()
    assert (told["http.response.status_code"], told["mainspring.batch_size"]) == (200, 1)
    assert all(span.parent_span_id == request.span_id for span in own.values())
    times = [request.start_time_unix_nano, *(own[name].start_time_unix_nano for name in ("features", "model", "log"))]
    times += [own["log"].end_time_unix_nano, request.end_time_unix_nano]
    assert times == sorted(times)
    assert began <= times[0]
    assert times[-1] <= ended
    (rows,) = (span for span in collector.spans if span.name == "POST /v1/delivery/rows")
    assert attributes(rows)["mainspring.batch_size"] == 3
    assert rows.parent_span_id == b""
    assert collector.services == {"mainspring"}


def test_what_is_not_sampled_is_not_sent_and_failures_are_marked(collector: Collector, tmp_path: Path) -> None:
    with background(RuleService(tmp_path), settings=Settings(traces=Traces(collector.endpoint, 0.0))) as url:
        for flags, zone in (("01", "down"), ("00", "down")):
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-{flags}"}
            assert httpx.post(f"{url}/v1/eta", json=TRIP | {"zone": zone}, headers=headers, trust_env=False).status_code == 503
        assert httpx.post(f"{url}/v1/eta", json=TRIP, trust_env=False).status_code == 200
    (span,) = collector.spans
    assert (span.status.code, attributes(span)["http.response.status_code"]) == (2, 503)


def test_a_collector_that_is_away_holds_up_nobody(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the OTLP exporter is not installed")
    began = time.monotonic()
    with background(RuleService(tmp_path), settings=Settings(traces=Traces("http://127.0.0.1:9/v1/traces"))) as url:
        assert httpx.post(f"{url}/v1/eta", json=TRIP, trust_env=False).status_code == 200
    assert time.monotonic() - began < 5


def test_without_an_endpoint_nothing_of_it_is_there(tmp_path: Path) -> None:
    with background(RuleService(tmp_path)) as url:
        assert "traceparent" not in httpx.post(f"{url}/v1/eta", json=TRIP, trust_env=False).headers
