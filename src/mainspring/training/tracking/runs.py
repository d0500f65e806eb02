"""What a record of a training is: one frozen `Run`, and the curves that it logged step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

STATUSES = ("running", "finished", "failed", "killed")


@dataclass(frozen=True, slots=True)
class Run:
    """One training. ``status`` is one of `STATUSES`; a run whose process died without an end is ``killed``.

    ``parameters``, ``data`` (its hash and what it was made from) and ``code`` (version, commit, hash of local changes) are JSON;
    ``environment`` is the SHA-256 of a blob with Python, machine and packages; ``metrics`` holds final figures by name, as in
    ``validation/mae``, ``notes`` what else is to be said, as text; ``artifacts`` maps names of files and plots to the SHA-256 of their
    bytes. ``started_at`` and ``ended_at`` are instants, ``seconds`` is elapsed time, ``price_per_hour`` what such an hour costs,
    ``parent`` the run that this one is a trial of.
    """

    id: str
    name: str
    started_at: int
    parameters: Mapping[str, Any]
    data: Mapping[str, Any]
    code: Mapping[str, Any]
    environment: str
    seed: int | None
    parent: str | None
    price_per_hour: float | None
    status: str = "running"
    ended_at: int | None = None
    seconds: float | None = None
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def cost(self) -> float | None:
        """Seconds times the declared price; None while either is missing."""
        return None if self.seconds is None or self.price_per_hour is None else self.seconds * self.price_per_hour / 3600

    def to_dict(self) -> dict[str, Any]:
        """The record with its cost, ready for JSON."""
        return {**asdict(self), "cost": self.cost}


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over time: ``step`` (int64), ``value`` (float64) and ``at`` (instants, int64), all of shape ``(n,)``, as logged."""

    step: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]


def differences(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What tells records (by id) apart: dotted names of the fields in which they differ, with each one's value, None where it lacks it."""
    flattened = [flat(one) for one in runs.values()]
    names = sorted({name for one in flattened for name in one})
    table = {name: [one.get(name) for one in flattened] for name in names}
    return {name: values for name, values in table.items() if any(value != values[0] for value in values)}


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, their names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
