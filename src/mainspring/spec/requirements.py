"""Requirements: what was promised, each of which a report must prove or deny."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Quality:
    """A bound on a measured metric; with ``of``, on its ratio to the same metric of a declared baseline."""

    metric: str
    low: float | None = None
    high: float | None = None
    of: str | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise DeclarationError(f"Quality '{self.metric}': give a lower or an upper bound.")

    @property
    def subject(self) -> str:
        """What is bounded: ``mae`` or ``mae / route_median``."""
        return self.metric if self.of is None else f"{self.metric} / {self.of}"

    def __str__(self) -> str:
        subject = self.subject
        if self.low is None:
            return f"{subject} <= {self.high:g}"
        return f"{subject} >= {self.low:g}" if self.high is None else f"{subject} in [{self.low:g}, {self.high:g}]"


def at_least(metric: str, value: float, *, of: str | None = None) -> Quality:
    """The metric must be at least ``value``."""
    return Quality(metric, low=value, of=of)


def at_most(metric: str, value: float, *, of: str | None = None) -> Quality:
    """The metric must be at most ``value``: ``at_most('mae', 0.8, of='route_median')`` is 20 % below that baseline."""
    return Quality(metric, high=value, of=of)


def between(metric: str, low: float, high: float) -> Quality:
    """The metric must lie in ``[low, high]``."""
    return Quality(metric, low, high)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the system must hold to: scale, latency, availability, cost, quality, explanations.

    ``latency_p99`` bounds the online answer (a duration); ``availability`` is the share of valid requests answered;
    ``cost_per_1k`` is US dollars per 1,000 answers at ``cpu_hour_price`` dollars a core hour; ``freshness`` bounds the time
    from an event's arrival to its being readable online; ``explain='reasons'`` asks for the features that moved an answer.
    """

    users: int | None = None
    peak_rps: float | None = None
    latency_p99: str | None = None
    availability: float | None = None
    cost_per_1k: float | None = None
    cpu_hour_price: float = 0.05
    freshness: str | None = None
    quality: Sequence[Quality] = ()
    explain: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "quality", tuple(self.quality))
        for duration in (self.latency_p99, self.freshness):
            if duration is not None:
                parse_duration(duration)
        if self.availability is not None and not 0 < self.availability <= 1:
            raise DeclarationError(f"Requirements: availability {self.availability} is not a share between 0 and 1.")
        if self.explain not in (None, "reasons"):
            raise DeclarationError(f"Requirements: explain={self.explain!r} is not known. Use 'reasons' or leave it out.")
