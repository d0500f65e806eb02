"""The report of a run as data; `report_text` and `report_html` render it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from mainspring.clock import format_instant
from mainspring.design.verify import Verdict

Series = tuple[tuple[int, float, float | None], ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that the loop decided: when, what kind, about which version, and why."""

    at: int
    kind: str
    version: str
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Labelled answers of one group: how many, mean absolute error and bias (answer less truth) in the label's unit."""

    key: tuple[str, ...]
    n: int
    mae: float
    bias: float


@dataclass(frozen=True, slots=True)
class Report:
    """A run, from its records. Instants are microseconds UTC, errors in the label's unit (``unit``).

    ``comparison`` rows are name, MAE, MAE relative to the live system, rows; ``skew`` is requests, values, differences;
    ``quarantined`` source, reason, count; ``daily`` window start and MAE per series; ``drift`` per feature readings of
    window end, distance and threshold; ``latencies_ms`` has shape ``(requests,)``.
    """

    system: str
    question: str
    unit: str
    started: int
    finished: int
    wall_seconds: float
    peak_memory_bytes: int
    requests: int
    verdicts: tuple[Verdict, ...]
    comparison: tuple[tuple[str, float, float, int], ...]
    moments: tuple[Moment, ...]
    skew: tuple[int, int, int]
    quarantined: tuple[tuple[str, str, int], ...]
    answered_by: tuple[tuple[str, int], ...]
    groups: tuple[Group, ...]
    group_names: tuple[str, ...]
    daily: tuple[tuple[int, Mapping[str, float]], ...]
    latencies_ms: npt.NDArray[np.float64]
    drift: Mapping[str, Series]
    places: tuple[tuple[str, str], ...]
    next_commands: tuple[tuple[str, str], ...]

    def latency(self, q: float) -> float | None:
        """A quantile of the latencies in milliseconds."""
        return float(np.quantile(self.latencies_ms, q)) if len(self.latencies_ms) else None


def to_json(report: Report) -> str:
    """The report as JSON; latencies as their quantiles, instants as ISO 8601."""
    body = {name: value for name, value in asdict(report).items() if name != "latencies_ms"}
    body["latency_ms"] = {f"p{q * 100:g}": report.latency(q) for q in (0.5, 0.95, 0.99, 0.999)}
    body["started"], body["finished"] = format_instant(report.started), format_instant(report.finished)
    for moment in body["moments"]:
        moment["at"] = format_instant(moment["at"])
    return json.dumps(_finite(body), indent=1)


def _finite(value: object) -> object:
    """NaN has no place in JSON: it becomes null."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
