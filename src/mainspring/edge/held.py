"""What an exported file was held against: how far its answers are from the service's, and how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.edge.samples import Sample
from mainspring.errors import ExportError


@dataclass(frozen=True, slots=True)
class Held:
    """Figures of ``rows`` answers: the largest difference relative to the answer (at least 1), and microseconds an answer."""

    rows: int
    difference: float
    p50: float
    p99: float


def held(target: str, label: str, asked: Sequence[Sample], answers: Sequence[dict[str, Any]], seconds: Any, tolerance: float) -> Held:
    """The figures of ``answers`` to ``asked``, which took ``seconds`` of shape ``(n,)``.

    Raises:
        ExportError: an answer or an end of an interval is further off than ``tolerance``; the message holds the request.
    """
    worst = 0.0
    for sample, answer in zip(asked, answers, strict=True):
        apart = _apart(sample, answer, label)
        if not apart <= tolerance:
            raise ExportError(
                f"Target {target}: the file answers {answer.get(label)!r} where the service answers {sample.expected[0]!r}, which is more "
                f"than {tolerance:g} apart, to the request {sample.request} with {sample.given}. Nothing was written. Report this."
            )
        worst = max(worst, apart)
    p50, p99 = (float(np.quantile(seconds, q) * 1e6) for q in (0.5, 0.99))
    return Held(len(asked), worst, p50, p99)


def _apart(sample: Sample, answer: dict[str, Any], label: str) -> float:
    if sample.expected[0] is None:
        return 0.0 if answer.get("answered_by") != "model" else np.inf
    if answer.get("answered_by") != "model":
        return np.inf
    interval = answer.get("interval") or {}
    found = (answer[label], interval.get("low"), interval.get("high"))
    if [one is None for one in found] != [one is None for one in sample.expected]:
        return np.inf
    pairs = [(one, other) for one, other in zip(found, sample.expected, strict=True) if one is not None and other is not None]
    return max(float(abs(one - other)) / max(1.0, abs(other)) for one, other in pairs)
