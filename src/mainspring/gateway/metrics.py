"""Counts and latencies in the Prometheus text format, version 0.0.4."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mainspring.gateway.latencies import RecentLatencies
from mainspring.gateway.processes.shared_counts import Counts, Crew, SharedCounts
from mainspring.gateway.routes import system_of
from mainspring.gateway.service import Service

if TYPE_CHECKING:
    from mainspring.feature_store.workers import WorkerState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

_REQUESTS = "mainspring_requests_total"
_REJECTED = "mainspring_rejected_total"
_LATENCY = "mainspring_request_seconds"
_RECENT = "mainspring_answer_seconds_recent"
_QUANTILES = (0.5, 0.95, 0.99)
_READY = "mainspring_workers_ready"
_RESTARTS = "mainspring_worker_restarts_total"
_BREAKER = "mainspring_breaker_open"
_UNSHADOWED = "mainspring_unshadowed_total"
_GAUGES = {
    "in_flight": "Requests let in and not yet answered.",
    "queue_delay_seconds": "Seconds that the last request waited before its handler.",
    "overloaded": "Whether a queue stands, so that requests are refused early.",
    "loop_lag_seconds": "Seconds by which the event loop was late at its last tick.",
    "connections": "Open connections.",
    "limit_fallbacks_total": "Requests counted in this process alone because the shared limits were away.",
    "access_log_dropped_total": "Lines of the access log that were dropped because too many waited.",
}

OF_SYSTEMS = {
    "cache_hits_total": "Rows whose score the cache had.",
    "cache_misses_total": "Rows whose score the cache had not.",
    "asked_versions_bytes": "Bytes that versions which are not live and were asked for are taken to need.",
}


class Metrics:
    """What happened since the server started. Routes and reasons are the caller's own words, never a client's.

    With ``shared`` it is one of several processes that serve together: `text` tells of all of them, `share` lets the others do so.
    """

    def __init__(
        self,
        shared: SharedCounts | None = None,
        *,
        gauges: Callable[[], Mapping[str, float]] = dict,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """``gauges`` gives what is true now, by the names of `_GAUGES`; ``timer`` seconds that only go forward."""
        self._shared = shared
        self._gauges = gauges
        self._timer = timer
        self._recent: dict[tuple[str, str, str, str], RecentLatencies] = {}
        self._requests: Counter[tuple[str, int, str, str, str]] = Counter()
        self._rejected: Counter[tuple[str, str]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()
        self._watched: list[tuple[Service, Callable[[], Mapping[str, float]]]] = []

    def count(self, route: str, status: int, seconds: float, answered_by: str = "", version: str = "", variant: str = "") -> None:
        """Count a finished request and the seconds it took."""
        self._requests[route, status, answered_by, version, variant] += 1
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = [0] * (len(BUCKETS) + 1)
        buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds[route] += seconds  # type: ignore[assignment]
        if answered_by:
            recent = self._recent.get((route, version, variant, answered_by))
            if recent is None:
                recent = self._recent[route, version, variant, answered_by] = RecentLatencies()
            recent.add(seconds, self._timer())

    def reject(self, route: str, reason: str) -> None:
        """Count a refused request by its reason."""
        self._rejected[route, reason] += 1

    def watch(self, service: Service, counts: Callable[[], Mapping[str, float]]) -> None:
        """Ask a service for its health at every scrape, and what of its system is counted by the names of `OF_SYSTEMS`."""
        self._watched.append((service, counts))

    def share(self) -> None:
        """Let the other processes see the counts as they are now."""
        if self._shared is not None:
            self._shared.write(self._counts())

    def text(self) -> str:
        """All of it as a scrape."""
        total = self._counts()
        crew: Iterator[str] = iter(())
        if self._shared is not None:
            for counts in self._shared.others():
                _add(total, counts)
            crew = _crew(self._shared.crew())
        of_systems = [*self._of_systems(), *self._healths()]
        return "\n".join([*_counters(total), *_histogram(total), *self._quantiles(), *self._now(), *of_systems, *crew, ""])

    def _counts(self) -> Counts:
        buckets = {route: list(counts) for route, counts in self._buckets.items()}
        return Counts(dict(self._requests), dict(self._rejected), buckets, dict(self._seconds))

    def _quantiles(self) -> Iterator[str]:
        yield from _head(_RECENT, "gauge", "Quantiles of the seconds that answers took in the last minutes, by what answered.")
        now = self._timer()
        for (route, version, variant, answered_by), recent in sorted(self._recent.items()):
            labels = {**_place(route), "version": version, "variant": variant, "answered_by": answered_by}
            for share, value in zip(_QUANTILES, recent.quantiles(_QUANTILES, now) or (), strict=False):
                yield _sample(_RECENT, {**labels, "quantile": str(share)}, value)

    def _now(self) -> Iterator[str]:
        for name, value in self._gauges().items():
            yield from _head(f"mainspring_{name}", "counter" if name.endswith("_total") else "gauge", _GAUGES[name])
            yield f"mainspring_{name} {float(value):g}"

    def _of_systems(self) -> Iterator[str]:
        counted = {service.system.name: counts() for service, counts in self._watched}
        for name, text in OF_SYSTEMS.items():
            yield from _head(f"mainspring_{name}", "counter" if name.endswith("_total") else "gauge", text)
            for system, counts in counted.items():
                if name in counts:
                    yield _sample(f"mainspring_{name}", {"system": system}, counts[name])

    def _healths(self) -> Iterator[str]:
        healths = {service.system.name: service.health() for service, _ in self._watched}
        yield from _head(_BREAKER, "gauge", "Whether a part is left out for a while because it failed or was late, by system and part.")
        for system, health in healths.items():
            yield from (_sample(_BREAKER, {"system": system, "part": part}, int(open)) for part, open in health.left_out.items())
        yield from _head(_UNSHADOWED, "counter", "Answers whose shadow score was left out because the server was behind.")
        for system, health in healths.items():
            yield _sample(_UNSHADOWED, {"system": system}, health.unshadowed)


def _add(total: Counts, counts: Counts) -> None:
    for key, count in counts.requests.items():
        total.requests[key] = total.requests.get(key, 0) + count
    for reason, count in counts.rejected.items():
        total.rejected[reason] = total.rejected.get(reason, 0) + count
    for route, buckets in counts.buckets.items():
        before = total.buckets.get(route, [0] * len(buckets))
        total.buckets[route] = [one + other for one, other in zip(before, buckets, strict=True)]
        total.seconds[route] = total.seconds.get(route, 0.0) + counts.seconds[route]


def _counters(counts: Counts) -> Iterator[str]:
    yield from _head(_REQUESTS, "counter", "Requests answered, by route, status, and what answered.")
    for (route, status, answered_by, version, variant), count in sorted(counts.requests.items()):
        labels = {**_place(route), "status": str(status), "answered_by": answered_by, "version": version, "variant": variant}
        yield _sample(_REQUESTS, labels, count)
    yield from _head(_REJECTED, "counter", "Requests refused, by route and reason.")
    for (route, reason), count in sorted(counts.rejected.items()):
        yield _sample(_REJECTED, {**_place(route), "reason": reason}, count)


def _histogram(counts: Counts) -> Iterator[str]:
    yield from _head(_LATENCY, "histogram", "Seconds from a request's head to its answer, by route.")
    for route, buckets in sorted(counts.buckets.items()):
        total = 0
        for bound, count in zip((*BUCKETS, "+Inf"), buckets, strict=True):
            total += count
            yield _sample(f"{_LATENCY}_bucket", {**_place(route), "le": str(bound)}, total)
        yield _sample(f"{_LATENCY}_sum", _place(route), counts.seconds[route])
        yield _sample(f"{_LATENCY}_count", _place(route), total)


def _crew(crew: Crew) -> Iterator[str]:
    yield from _head(_READY, "gauge", "Worker processes that are ready.")
    yield f"{_READY} {crew.ready}"
    yield from _head(_RESTARTS, "counter", "Times a process of the server died and was started again, by signal or exit code.")
    for cause, count in sorted(crew.restarts.items()):
        yield _sample(_RESTARTS, {"cause": cause}, count)


def stream_text(states: Sequence[WorkerState], now: int) -> str:
    """The workers of a stream as a scrape, at the instant ``now``; what is not known yet is left out."""
    done = [state.progress for state in states]
    fresh = [one.freshness_us(now) for one in done]
    rows: list[tuple[str, str, str, Sequence[float | None]]] = [
        ("events_total", "counter", "Events of the log that a worker has passed.", [one.events for one in done]),
        ("transactions_total", "counter", "Transactions on the online store.", [one.transactions for one in done]),
        (
            "dead_letters_total",
            "counter",
            "Frames that did not fit the declaration and were set aside.",
            [one.dead_letters for one in done],
        ),
        ("failures_total", "counter", "Times the log or the store failed and was tried again.", [one.failures for one in done]),
        ("restarts_total", "counter", "Times a worker died and was started again.", [state.restarts for state in states]),
        ("lag", "gauge", "Events of the log, on Kafka messages, that a worker has yet to pass.", [one.lag for one in done]),
        ("freshness_seconds", "gauge", "Age of the newest known time applied.", [None if age is None else age / 1e6 for age in fresh]),
    ]
    lines: list[str] = []
    for name, kind, text, values in rows:
        lines += _head(f"mainspring_stream_{name}", kind, text)
        numbered = ((str(state.number), value) for state, value in zip(states, values, strict=True))
        lines += [_sample(f"mainspring_stream_{name}", {"worker": number}, value) for number, value in numbered if value is not None]
    return "\n".join([*lines, ""])


@contextmanager
def scraped(port: int, text: Callable[[], str]) -> Iterator[int]:
    """Answer ``GET /metrics`` on ``port`` of 127.0.0.1, 0 for a free one, while the context lasts; gives the port."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text().encode() if self.path == "/metrics" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _place(route: str) -> dict[str, str]:
    return {"route": route, "system": system_of(route)}


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
    return f"{name}{{{pairs}}} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
