"""Predictive intervals from held-out rows: split conformal prediction from residuals in bins of the prediction, or from quantiles.

Of two classes or more `mainspring.models.sets` makes sets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.models.protocol import Floats, Predictor

LEAST_ROWS = 50
LOW, HIGH = "low.", "high."
"""What stands before the names of the files of the two quantiles' predictors."""


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
        bins_of = [residual[place == i] if (place == i).sum() >= LEAST_ROWS else residual for i in range(len(edges) + 1)]
        low = tuple(min(_ranked(one, quantiles[0], np.floor), 0.0) for one in bins_of)
        return cls(tuple(edges.tolist()), low, tuple(max(_ranked(one, quantiles[1], np.ceil), 0.0) for one in bins_of))

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


@dataclass(frozen=True, slots=True)
class QuantileInterval:
    """Two predictors of quantiles, and what is added to each so that its bound holds: conformalised quantile regression.

    ``below`` and ``above`` are in the label's unit. Each bound alone holds with its probability for exchangeable rows. The width follows
    the row, not only the prediction. Source: Romano, Patterson, Candes, "Conformalized quantile regression", 2019, theorem 2.
    """

    low: Predictor
    high: Predictor
    below: float
    above: float

    @classmethod
    def fit(cls, low: Predictor, high: Predictor, x: Floats, truth: Floats, quantiles: tuple[float, float]) -> QuantileInterval:
        """From encoded rows of shape ``(n, d)`` that neither predictor was fitted on, and their truths of shape ``(n,)``, n >= 1."""
        below = _ranked(truth - low.predict(x), quantiles[0], np.floor)
        return cls(low, high, below, _ranked(truth - high.predict(x), quantiles[1], np.ceil))

    def apply(self, x: Floats) -> tuple[Floats, Floats]:
        """Lower and upper bounds, each of shape ``(n,)``, for encoded rows of shape ``(n, d)``."""
        return self.low.predict(x) + self.below, self.high.predict(x) + self.above

    def apply_one(self, x: Floats) -> tuple[float, float]:
        """Lower and upper bound of one encoded row of shape ``(d,)``."""
        return float(self.low.predict_row(x)[0]) + self.below, float(self.high.predict_row(x)[0]) + self.above

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form of all but the predictors."""
        return {"below": self.below, "above": self.above}

    def to_artifacts(self) -> dict[str, bytes]:
        """The files of both predictors, under ``low.`` and ``high.``."""
        parts = ((LOW, self.low), (HIGH, self.high))
        return {f"{prefix}{name}": data for prefix, predictor in parts for name, data in predictor.to_artifacts().items()}


def weighted_thresholds(scores: Floats, weights: Floats, own: Floats, coverage: float) -> Floats:
    """What the score of a new row stays below with probability ``coverage`` though its features are distributed otherwise; shape ``(m,)``.

    ``scores`` of shape ``(n,)`` are those of held-out rows (an absolute residual, say), ``weights`` how much likelier the features of
    each are among new rows than among these, ``own`` of shape ``(m,)`` the same of the new rows. Infinite where the held-out rows
    say too little. Source: Tibshirani, Barber, Candes, Ramdas, "Conformal prediction under covariate shift", 2019.
    """
    order = np.argsort(scores)
    mass = np.cumsum(weights[order])
    place = np.searchsorted(mass, coverage * (mass[-1] + own), side="left")
    thresholds: Floats = np.append(scores[order], np.inf)[place]
    return thresholds


def _ranked(values: Floats, quantile: float, rounded: Any) -> float:
    """The order statistic at the rank ``quantile * (n + 1)``, rounded outwards and kept inside the sample."""
    ordered, n = np.sort(values), len(values)
    return float(ordered[min(max(int(rounded(quantile * (n + 1))), 1), n) - 1])
