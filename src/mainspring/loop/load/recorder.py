"""What load came to: latencies, failures by kind, the generator's own lag; in total and second by second."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mainspring.loop.load.histogram import Histogram

OPEN, CLOSED = "open", "closed"
SHOWN = (0.5, 0.9, 0.95, 0.99, 0.999)
_LAG_SECONDS = 0.001
_LAG_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Moment:
    """One second of it: when it began, answers, failures, latencies in seconds (NaN without answers)."""

    second: float
    answered: int
    failed: int
    p50: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Load:
    """One measurement. Rates are per second, times in seconds.

    In the ``open`` mode latency counts from the instant a request was due, whether or not it could be sent then (no coordinated
    omission); in the ``closed`` mode, where each connection waits for its answer before it asks again, from the instant it was sent:
    such latencies say nothing of what users would see. Time-outs count in the latencies with the time that they waited; other
    failures do not. ``lag`` is how late requests were put on the wire by the generator itself with a connection at hand.
    """

    mode: str
    connections: int
    asked_rate: float | None
    seconds: float
    answered: int
    failures: dict[str, int]
    latency: Histogram = field(repr=False)
    lag: Histogram = field(repr=False)
    moments: tuple[Moment, ...] = field(repr=False)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.answered / self.seconds

    @property
    def failed(self) -> float:
        """The share of requests without a good answer."""
        failed = sum(self.failures.values())
        return failed / max(1, failed + self.answered)

    def percentile(self, q: float) -> float:
        """The latency in seconds that a share ``q`` does not exceed."""
        return float(self.latency.quantiles(q))

    @property
    def behind(self) -> str | None:
        """Why the figures are partly the generator's own; None when it kept its schedule."""
        if self.mode == CLOSED or not self.lag.count:
            return None
        late = float(self.lag.quantiles(0.99))
        if late <= max(_LAG_SECONDS, _LAG_SHARE * self.percentile(0.99)):
            return None
        return f"the generator itself sent 1 % of requests {late * 1e3:.2f} ms late or more: these latencies are partly its own"

    def to_dict(self) -> dict[str, object]:
        """The figures as plain data; latencies in milliseconds."""
        return {
            "mode": self.mode,
            "connections": self.connections,
            "asked_rate": self.asked_rate,
            "rate": self.rate,
            "seconds": self.seconds,
            "answered": self.answered,
            "failures": self.failures,
            "latency_ms": _milliseconds(self.latency),
            "lag_ms": _milliseconds(self.lag),
            "behind": self.behind,
        }


class Recorder:
    """Takes in one request at a time, and closes a second at a time."""

    def __init__(self) -> None:
        self._total, self._lag, self.moments = Histogram(), Histogram(), list[Moment]()
        self._failures: dict[str, int] = {}
        self._second: list[int] = []
        self._lags: list[int] = []
        self._answered = 0
        self._failed = 0
        self._waited: list[int] = []
        self.answered = self._second.append
        self.late = self._lags.append

    def failed(self, kind: str, waited: int | None = None) -> None:
        """A request without a good answer; ``waited`` in nanoseconds where that counts as its latency."""
        self._failures[kind] = self._failures.get(kind, 0) + 1
        self._failed += 1
        if waited is not None:
            self._waited.append(waited)

    def close_second(self, began: float) -> None:
        """End a second that began so many seconds after the warm-up."""
        good = len(self._second)
        durations = np.array(self._second + self._waited, dtype=np.int64)
        self._total.add(durations)
        self._lag.add(np.array(self._lags, dtype=np.int64))
        p50, p99 = np.quantile(durations, (0.5, 0.99)) / 1e9 if len(durations) else (np.nan, np.nan)
        longest = float(durations.max()) / 1e9 if len(durations) else float("nan")
        self.moments.append(Moment(began, good, self._failed, float(p50), float(p99), longest))
        self._answered += good
        self._failed = 0
        for held in (self._second, self._lags, self._waited):
            held.clear()

    def finish(self, mode: str, connections: int, asked_rate: float | None, seconds: float) -> Load:
        """All of it."""
        moments = tuple(self.moments)
        return Load(mode, connections, asked_rate, seconds, self._answered, self._failures, self._total, self._lag, moments)


def _milliseconds(held: Histogram) -> dict[str, float | None]:
    values = [None if np.isnan(value) else float(value) * 1e3 for value in held.quantiles(SHOWN)]
    return {**{f"p{q * 100:g}": value for q, value in zip(SHOWN, values, strict=True)}, "max": held.longest / 1e6}
