"""What the declared baselines would have answered, for the gate and for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.clock import parse_duration
from mainspring.columns import Array
from mainspring.models.baselines import GroupMedians, LinearLine, recent_ratio
from mainspring.spec import GroupMedian, LinearRule, RecentRatio, System

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Requests: their columns (request columns and features) and ``as_of``, each of shape ``(n,)``."""

    columns: Mapping[str, Array]
    as_of: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Truth:
    """Requests whose label has come: ``label`` and when it was known, each of shape ``(m,)``."""

    columns: Mapping[str, Array]
    label: Floats
    known_at: npt.NDArray[np.int64]


def predict_baselines(system: System, fitted: Mapping[str, LinearLine | GroupMedians], rows: Rows, truth: Truth) -> dict[str, Floats]:
    """The answer of every declared baseline to ``rows``; a `RecentRatio` sees of ``truth`` only what was known in time.

    Where two classes are told apart an answer is a probability: what lies beyond 0 or 1 is cut.
    """
    answers: dict[str, Floats] = {}
    for baseline in system.baselines:
        if isinstance(baseline, LinearRule):
            line = fitted[baseline.name]
            assert isinstance(line, LinearLine)
            answers[baseline.name] = line.predict(_numeric(rows.columns[baseline.on]))
        elif isinstance(baseline, GroupMedian):
            answers[baseline.name] = _medians(baseline, fitted).predict([rows.columns[name] for name in baseline.by])
        else:
            answers[baseline.name] = _recent(baseline, fitted, rows, truth)
    return {name: np.clip(score, 0.0, 1.0) for name, score in answers.items()} if system.model.task == "binary" else answers


def _recent(baseline: RecentRatio, fitted: Mapping[str, LinearLine | GroupMedians], rows: Rows, truth: Truth) -> Floats:
    medians = _medians(baseline.base, fitted)
    base = medians.predict([rows.columns[name] for name in baseline.base.by])
    ratio = truth.label / medians.predict([truth.columns[name] for name in baseline.base.by])
    bands = rows.columns[baseline.band], truth.columns[baseline.band]
    return recent_ratio(
        rows.as_of,
        base,
        bands[0],
        truth.known_at,
        bands[1],
        ratio,
        window=parse_duration(baseline.window),
        delay=parse_duration(baseline.delay),
    )


def _medians(baseline: GroupMedian, fitted: Mapping[str, LinearLine | GroupMedians]) -> GroupMedians:
    medians = fitted[baseline.name]
    assert isinstance(medians, GroupMedians)
    return medians


def _numeric(column: Array) -> Floats:
    return np.array([np.nan if value is None else value for value in column], dtype=np.float64)
