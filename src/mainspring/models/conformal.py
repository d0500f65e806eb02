"""Predictive intervals from held-out residuals: split conformal prediction, apart for bins of the prediction."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEAST_ROWS = 50


@dataclass(frozen=True, slots=True)
class ConformalInterval:
    """Per bin of the prediction, the two residual quantiles to add to it.

    ``edges`` of length ``k - 1`` part ``k`` bins; ``low`` and ``high`` of length ``k`` are in the label's unit. Each bound alone
    holds with its probability for exchangeable rows (one-sided split conformal with the finite-sample rank). Sources: Lei et
    al., "Distribution-free predictive inference for regression", 2018; bins after Vovk's Mondrian predictors, 2003. The
    interval never leaves out the prediction itself, which can only widen it.
    """

    edges: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def fit(cls, predicted: Floats, truth: Floats, quantiles: tuple[float, float], bins: int = 10) -> ConformalInterval:
        """From predictions and truths of shape ``(n,)`` on rows the model was not fitted on, n >= 1."""
        bins = max(1, min(bins, len(predicted) // LEAST_ROWS))
        edges = np.unique(np.quantile(predicted, np.arange(1, bins) / bins)) if bins > 1 else np.empty(0)
        place = np.searchsorted(edges, predicted, "right")
        residual = truth - predicted
        bounds = [_bounds(residual[place == i] if (place == i).sum() >= LEAST_ROWS else residual, quantiles) for i in range(len(edges) + 1)]
        return cls(tuple(edges.tolist()), tuple(low for low, _ in bounds), tuple(high for _, high in bounds))

    def apply(self, predicted: Floats) -> tuple[Floats, Floats]:
        """Lower and upper bounds, each of shape ``(n,)``."""
        place = np.searchsorted(np.array(self.edges), predicted, "right")
        return predicted + np.array(self.low)[place], predicted + np.array(self.high)[place]

    def apply_one(self, predicted: float) -> tuple[float, float]:
        """Lower and upper bound of one prediction."""
        place = bisect_right(self.edges, predicted)
        return predicted + self.low[place], predicted + self.high[place]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"edges": self.edges, "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ConformalInterval:
        """The interval that `to_dict` wrote."""
        return cls(tuple(body["edges"]), tuple(body["low"]), tuple(body["high"]))


def _bounds(residual: Floats, quantiles: tuple[float, float]) -> tuple[float, float]:
    """The order statistics at ranks ``floor(q (n + 1))`` from below and ``ceil(q (n + 1))`` from above, kept inside the sample."""
    ordered, n = np.sort(residual), len(residual)
    low = min(max(int(np.floor(quantiles[0] * (n + 1))), 1), n)
    high = min(max(int(np.ceil(quantiles[1] * (n + 1))), 1), n)
    return min(float(ordered[low - 1]), 0.0), max(float(ordered[high - 1]), 0.0)
