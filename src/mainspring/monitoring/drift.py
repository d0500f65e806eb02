"""Drift of features: each window against the system's own windows before it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainspring.metrics import Reference, fit_reference, histogram, js_distances, js_noise
from mainspring.monitoring.reading import BASELINE, CALIBRATED, IN_A_ROW, Reading, learned_level

EFFECT = 0.1
JUMP = 0.2
MIN_ROWS = 50
_ALPHA = 0.001
_VARIED = 0.9
_SAMPLE = 5000

Counts = NDArray[np.int64]


class DriftMonitor:
    """Follows the distribution of every feature by its Jensen-Shannon distance from the newest 28 calm windows.

    The distance is the smaller of two: from all of them pooled, and from those at the same place of the ``season`` (7: the
    same weekday, for windows of a day; 1: none). From 14 windows on the threshold is exp(mean + 3 sd) of the log of the same
    distance for each of these windows from the others; before that readings are not calibrated and it is the greatest of
    these distances, at least 0.1 (a shift of about a quarter of a standard deviation); in the first season there is none.
    It is never below what sampling alone exceeds once in 1,000 windows of all features. Two windows in a row above it alarm.

    Hard breaks alarm at once: a share of missing values, of new categories or of values out of range more than 20 points
    above that of every calm window, a feature that has become constant, another type.

    A window above its threshold does not join the baseline; 14 in a row are the new normal, and bins and baseline are made
    anew from them. ``references`` (of the training data) give bins, and something to hold the first window against; without
    one, a feature's bins come from its first window, and for good from its first 14 calm ones. A window with fewer than 50
    rows is not judged.

    Rows are taken as independent. A feature whose rows share one cause a window (the day's weather) differs from any pool
    every day; its threshold learns that, but tells little: leave such features out.
    """

    def __init__(self, references: Mapping[str, Reference] | None = None, *, season: int = 7) -> None:
        self._season = season
        self._features = {name: _Feature(reference, final=True) for name, reference in (references or {}).items() if sum(reference.counts)}

    def observe(self, start: int, end: int, features: Mapping[str, NDArray[Any]]) -> list[Reading]:
        """Judge the next window, one reading per feature. Give it windows by time, each once and complete.

        ``features`` maps names to arrays of one length: objects for categories (None missing), else numbers (NaN missing).
        """
        phase, alpha = start // (end - start) % self._season, _ALPHA / max(len(features), 1)
        readings = []
        for name, values in features.items():
            value, threshold, alarm, calibrated, note = self._judge(name, values, phase, alpha)
            readings.append(Reading("drift", name, start, end, value, threshold, alarm, calibrated, len(values), note))
        return readings

    def _judge(self, name: str, values: NDArray[Any], phase: int, alpha: float) -> tuple[float, float | None, bool, bool, str]:
        if name not in self._features and len(values) >= MIN_ROWS:
            self._features[name] = _Feature(fit_reference(values), final=False)
        state = self._features.get(name)
        calibrated = state is not None and len(state.baseline) >= CALIBRATED
        if state is None or len(values) < MIN_ROWS:
            return math.nan, None, False, calibrated, f"fewer than {MIN_ROWS} rows"
        typed = _typed(state.reference, values)
        if typed is None:
            expected = "numbers" if state.reference.categories is None else "categories"
            return 1.0, None, True, calibrated, f"type changed: {expected} expected"
        counts = histogram(state.reference, typed)
        value, noise = state.distance(counts, phase, alpha)
        threshold = None if len(state.baseline) < self._season else max(noise, state.level())
        broken = state.broken(counts, typed)
        renewed = state.learn(counts, phase, typed, above=broken != "" or (threshold is not None and value > threshold))
        notes = [broken, "" if calibrated else "uncalibrated", "taken as the new normal" if renewed else ""]
        return value, threshold, broken != "" or renewed or len(state.run) >= IN_A_ROW, calibrated, "; ".join(filter(None, notes))


class _Feature:
    """What is kept of one feature: its bins, the calm windows, and the run of windows above the threshold.

    Until the bins are ``final`` a sample of the calm windows is kept to make better ones.
    """

    def __init__(self, reference: Reference, *, final: bool) -> None:
        self.reference = reference
        self.final = final
        self.calm: list[tuple[int, NDArray[Any]]] = []
        self.baseline: deque[tuple[int, Counts]] = deque(maxlen=BASELINE)
        self.run: list[tuple[int, NDArray[Any]]] = []

    def distance(self, counts: Counts, phase: int, alpha: float) -> tuple[float, float]:
        """The distance from the baseline, and what sampling alone makes of it with probability ``alpha``."""
        pools = self._pools(phase)
        distances = js_distances(np.broadcast_to(counts, pools.shape), pools)
        nearest = int(distances.argmin())
        return float(distances[nearest]), js_noise(counts, pools[nearest], alpha)

    def level(self) -> float:
        """The distance that is unusual among the windows of the baseline, each held against the others."""
        if len(self.baseline) == 1:
            return EFFECT
        phases, each = np.array([phase for phase, _ in self.baseline]), np.array([counts for _, counts in self.baseline])
        distances = js_distances(each, each.sum(axis=0) - each)
        others = (phases[:, None] == phases[None, :]).astype(np.int64) @ each - each
        paired = others.sum(axis=1) > 0
        distances[paired] = np.minimum(distances[paired], js_distances(each[paired], others[paired]))
        return learned_level(distances) if len(distances) >= CALIBRATED else max(EFFECT, float(distances.max()))

    def broken(self, counts: Counts, values: NDArray[Any]) -> str:
        """What has broken in this window against every calm one, or nothing."""
        known = np.array([each for _, each in self.baseline] or [np.array(self.reference.counts)])
        shares, known_shares = counts / counts.sum(), known / known.sum(axis=1, keepdims=True)
        outside = slice(-2, -1) if self.reference.categories is not None else slice(-3, -1)
        kind = "new categories" if self.reference.categories is not None else "values out of range"
        if shares[-1] > JUMP + known_shares[:, -1].max():
            return f"missing values rose to {shares[-1]:.0%}"
        if shares[outside].sum() > JUMP + known_shares[:, outside].sum(axis=1).max():
            return f"{kind} rose to {shares[outside].sum():.0%}"
        if known_shares.max() < _VARIED and shares.max() == 1.0 and len(set(values.tolist())) == 1:
            return f"constant at {values[0]}"
        return ""

    def learn(self, counts: Counts, phase: int, values: NDArray[Any], *, above: bool) -> bool:
        """Take the window in; whether a long run has become the new normal by it."""
        window = (phase, values[:: -(-len(values) // _SAMPLE)])
        if above:
            self.run.append(window)
            renewed = len(self.run) == CALIBRATED
            if renewed:
                self._restart(self.run)
            return renewed
        self.run.clear()
        self.baseline.append((phase, counts))
        if not self.final:
            self.calm.append(window)
            if len(self.calm) == CALIBRATED:
                self._restart(self.calm)
        return False

    def _restart(self, windows: list[tuple[int, NDArray[Any]]]) -> None:
        """Make bins and baseline anew from these windows."""
        self.reference = fit_reference(np.concatenate([sample for _, sample in windows]))
        self.baseline.clear()
        self.baseline.extend((phase, histogram(self.reference, sample)) for phase, sample in windows)
        self.run.clear()
        self.calm.clear()
        self.final = True

    def _pools(self, phase: int) -> NDArray[np.int64]:
        """What a window is held against: all calm windows together, and those of its phase; at first the reference."""
        if not self.baseline:
            return np.array([self.reference.counts])
        same = [counts for when, counts in self.baseline if when == phase]
        pools = [np.sum([counts for _, counts in self.baseline], axis=0), *([np.sum(same, axis=0)] if same else [])]
        return np.array(pools)


def _typed(reference: Reference, values: NDArray[Any]) -> NDArray[Any] | None:
    """The values as the reference's kind (only an all-missing array is of both), or None where they are of the other."""
    categorical = reference.categories is not None
    if (values.dtype == object) == categorical:
        return values
    if histogram(fit_reference(values), values)[-1] < len(values):
        return None
    return np.full(len(values), None, dtype=object) if categorical else np.full(len(values), np.nan)
