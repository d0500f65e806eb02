"""Requirements: what was promised, each of which a report must prove or deny."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError
from mainspring.spec.quality import Quality


@dataclass(frozen=True, slots=True)
class Costs:
    """What one row of each outcome costs, in one unit; a gain is below 0.

    Raises:
        DeclarationError: an alert is not cheaper than none on a true row, or not dearer on a false one.
    """

    tp: float
    fp: float
    fn: float
    tn: float = 0.0

    def __post_init__(self) -> None:
        if not self.tp < self.fn or not self.tn < self.fp:
            raise DeclarationError(f"{self}: an alert must be cheaper than none on a true row, and dearer on a false one.")

    @property
    def threshold(self) -> float:
        """The probability from which an alert is worth it, were the scores calibrated. Source: Elkan, IJCAI 2001."""
        return (self.fp - self.tn) / (self.fp - self.tn + self.fn - self.tp)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the system must hold to: scale, latency, availability, cost, quality, explanations.

    ``latency_p99`` bounds the online answer (a duration); ``availability`` is the share of valid requests answered;
    ``cost_per_1k`` is US dollars per 1,000 answers at ``cpu_hour_price`` dollars a core hour; ``freshness`` bounds the time
    from an event's arrival to its being readable online; ``explain='reasons'`` asks for the features that moved an answer;
    ``costs`` is what right and wrong alerts cost, where there are two classes.
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
    costs: Costs | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "quality", tuple(self.quality))
        for duration in (self.latency_p99, self.freshness):
            if duration is not None:
                parse_duration(duration)
        if self.availability is not None and not 0 < self.availability <= 1:
            raise DeclarationError(f"Requirements: availability {self.availability} is not a share between 0 and 1.")
        if self.explain not in (None, "reasons"):
            raise DeclarationError(f"Requirements: explain={self.explain!r} is not known. Use 'reasons' or leave it out.")
