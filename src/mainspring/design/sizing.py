"""What a System promises, as numbers for whoever runs it: time limits, processes, replicas, cores."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from mainspring.clock import SECOND, parse_duration
from mainspring.spec import System
from mainspring.storage.workspace import Workspace

BUSY_SHARE = 0.6
LEAST_REPLICAS = 2
_LIMIT_WITHOUT_PROMISE = 10
_TIMES_THE_PROMISE = 20


@dataclass(frozen=True, slots=True)
class Sizing:
    """How much of it there is. ``rate`` is the measured requests/s of a worker, None when nobody has measured it.

    An answer has ``limit_seconds``, 20 times ``latency_p99`` in whole seconds: who waits longer gets none. At ``peak_rps`` the
    ``replicas`` are busy for 60 % of the time; there are two at least, so that one may fail. ``most_replicas`` is what
    ``cost_per_1k`` pays for at the peak, or twice the replicas where no cost is declared.
    """

    workers: int
    rate: float | None
    replicas: int
    most_replicas: int
    limit_seconds: int

    @classmethod
    def of(cls, system: System, workers: int, rate: float | None) -> Sizing:
        """Sizes from the requirements of a System."""
        needs = system.requirements
        replicas = LEAST_REPLICAS
        if needs.peak_rps is not None and rate:
            replicas = max(LEAST_REPLICAS, math.ceil(needs.peak_rps / (BUSY_SHARE * rate * workers)))
        most = 2 * replicas
        if needs.peak_rps is not None and needs.cost_per_1k is not None:
            cores = needs.cost_per_1k / 1_000 * needs.peak_rps * 3_600 / needs.cpu_hour_price
            most = max(replicas, math.floor(cores / workers))
        limit = _LIMIT_WITHOUT_PROMISE
        if needs.latency_p99 is not None:
            limit = max(1, math.ceil(_TIMES_THE_PROMISE * parse_duration(needs.latency_p99) / SECOND))
        return cls(workers, rate, replicas, most, limit)


def measured_rate(workspace: Workspace) -> float | None:
    """Requests/s that one worker sustained in the run of a workspace, from its report; None where there is none."""
    file = workspace.report / "report.json"
    if not file.exists():
        return None
    verdicts = json.loads(file.read_text())["verdicts"]
    found = [one["value"] for one in verdicts if one["requirement"] == "peak requests/s"]
    return float(found[0]) if found and found[0] is not None else None
