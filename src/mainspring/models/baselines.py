"""Rules that a model must beat, and that answer when no model can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LinearLine:
    """A least-squares line; a null input is taken as ``typical``, the training mean."""

    intercept: float
    slope: float
    typical: float

    @classmethod
    def fit(cls, x: Floats, y: Floats) -> LinearLine:
        """From ``x`` and ``y`` of shape ``(n,)``; rows with NaN in ``x`` count only for the mean of ``y``."""
        known = ~np.isnan(x)
        spread = x[known] - x[known].mean() if known.any() else np.zeros(0)
        if not (spread**2).sum() > 0:
            return cls(float(y.mean()), 0.0, 0.0)
        slope = float((spread * y[known]).sum() / (spread**2).sum())
        typical = float(x[known].mean())
        return cls(float(y[known].mean()) - slope * typical, slope, typical)

    def predict(self, x: Floats) -> Floats:
        """Values of shape ``(n,)``."""
        return self.intercept + self.slope * np.where(np.isnan(x), self.typical, x)

    def predict_one(self, x: float | None) -> float:
        """The value for one input."""
        return self.intercept + self.slope * (self.typical if x is None else float(x))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"intercept": self.intercept, "slope": self.slope, "typical": self.typical}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> LinearLine:
        """The line that `to_dict` wrote."""
        return cls(body["intercept"], body["slope"], body["typical"])


@dataclass(frozen=True, slots=True)
class GroupMedians:
    """The median per group; an unseen group has the overall median."""

    medians: Mapping[tuple[Any, ...], float]
    overall: float

    @classmethod
    def fit(cls, keys: Sequence[Array], y: Floats) -> GroupMedians:
        """From key columns and ``y``, all of shape ``(n,)``."""
        order = np.argsort(y, kind="stable")
        ranked: dict[tuple[Any, ...], list[float]] = {}
        for key, value in zip(zip(*(column[order].tolist() for column in keys), strict=True), y[order].tolist(), strict=True):
            ranked.setdefault(key, []).append(value)
        return cls({key: _middle(values) for key, values in ranked.items()}, float(np.median(y)))

    def predict(self, keys: Sequence[Array]) -> Floats:
        """Values of shape ``(n,)`` for key columns of that shape."""
        rows = zip(*(column.tolist() for column in keys), strict=True)
        return np.array([self.medians.get(key, self.overall) for key in rows], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"medians": [[list(key), value] for key, value in self.medians.items()], "overall": self.overall}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> GroupMedians:
        """The medians that `to_dict` wrote."""
        return cls({tuple(key): value for key, value in body["medians"]}, body["overall"])


def recent_ratio(
    as_of: npt.NDArray[np.int64], base: Floats, band: Array, known_at: npt.NDArray[np.int64], label_band: Array, ratio: Floats,
    *, window: int, delay: int,
) -> Floats:  # fmt: skip
    """``base`` times the mean ``ratio`` per band of labels known in ``[as_of - delay - window, as_of - delay)``; 1 without any.

    Questions ``as_of``, ``base``, ``band`` have shape ``(n,)``, labels ``known_at``, ``label_band``, ``ratio`` shape ``(m,)``; instants
    and durations are microseconds.
    """
    factors = np.ones(len(as_of))
    for one in dict.fromkeys(band.tolist()):
        asked, held = np.flatnonzero(band == one), np.flatnonzero(label_band == one)
        held = held[np.argsort(known_at[held], kind="stable")]
        sums = np.concatenate([[0.0], np.cumsum(ratio[held])])
        last = np.searchsorted(known_at[held], as_of[asked] - delay, "left")
        first = np.searchsorted(known_at[held], as_of[asked] - delay - window, "left")
        seen = last > first
        factors[asked[seen]] = (sums[last] - sums[first])[seen] / (last - first)[seen]
    return base * factors


def _middle(ranked: list[float]) -> float:
    half = len(ranked) // 2
    return ranked[half] if len(ranked) % 2 else (ranked[half - 1] + ranked[half]) / 2
