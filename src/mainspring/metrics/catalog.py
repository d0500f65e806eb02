"""The measures by name: what a declaration may bound and an evaluation computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainspring.measures import MEASURES, Direction, Kind
from mainspring.metrics import calibration, classification, multiclass, ranking, regression

Values = NDArray[np.float64]

_NEEDS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "regression": ("predicted", "truth"),
        "quantile": ("predicted", "truth"),
        "interval": ("low", "high", "truth"),
        "binary": ("score", "truth"),
        "multiclass": ("probability", "truth"),
        "ranking": ("score", "relevance", "groups"),
    }
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure: ``function(*arrays, **options)`` with the arrays that `needs` names gives one float; the rest as in `Measure`.

    What makes its interval cheap, where there is such: ``by_row`` gives the values of each row whose mean it is, ``by_query`` those of
    each query (which an interval then draws), ``by_steps`` the same float from the `Steps` of its scores.
    """

    name: str
    function: Callable[..., float]
    better: Direction
    kind: Kind
    options: tuple[str, ...] = ()
    probability: bool = False
    by_query: Callable[..., Values] | None = None
    by_row: Callable[..., Values] | None = None
    by_steps: Callable[..., float] | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that it takes, in order."""
        return _NEEDS[self.kind]

    def improves(self, new: float, old: float, level: float = 0.0) -> bool:
        """Whether ``new`` is better than ``old``; ``level`` is what a measure of that direction aims at. NaN is never better."""
        if self.better == "higher":
            return new > old
        if self.better == "lower":
            return new < old
        return abs(new - level) < abs(old - level)


def _metric(name: str, function: Callable[..., float], **ways: Any) -> Metric:
    known = MEASURES[name]
    return Metric(name, function, known.better, known.kind, known.options, known.probability, **ways)


def _mean(name: str, by_row: Callable[..., Values], function: Callable[..., float]) -> Metric:
    return _metric(name, function, by_row=by_row)


def _ranked(name: str, by_query: Callable[..., Values]) -> Metric:
    def mean(*arrays: NDArray[Any], **chosen: Any) -> float:
        values = by_query(*arrays, **chosen)
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    return _metric(name, mean, by_query=by_query)


_ALL = (
    _mean("mae", regression.absolute_errors, regression.mae),
    _metric("rmse", regression.rmse),
    _mean("bias", regression.errors, regression.bias),
    _mean("pinball", regression.pinball_losses, regression.pinball),
    _mean("coverage", regression.covered, regression.coverage),
    _mean("log_loss", classification.log_losses, classification.log_loss),
    _mean("brier", classification.squared_errors, classification.brier),
    _metric("calibration_error", calibration.calibration_error, by_steps=calibration.binned_error),
    _metric("roc_auc", classification.roc_auc, by_steps=classification.area),
    _metric("average_precision", classification.average_precision, by_steps=classification.mean_precision),
    *(
        _metric(name, function, by_steps=classification.at_cut(name))
        for name, function in (
            ("precision", classification.precision),
            ("recall", classification.recall),
            ("f1", classification.f1),
            ("mcc", classification.mcc),
        )
    ),
    _mean("accuracy", classification.right, classification.accuracy),
    _mean("multiclass_log_loss", multiclass.log_losses, multiclass.multiclass_log_loss),
    _mean("multiclass_accuracy", multiclass.right, multiclass.multiclass_accuracy),
    _metric("macro_f1", multiclass.macro_f1),
    _ranked("ndcg", ranking.ndcg),
    _ranked("map", ranking.average_precision_at),
    _ranked("mrr", ranking.reciprocal_rank),
    _ranked("recall_at", ranking.recall_at),
    _ranked("precision_at", ranking.precision_at),
    _ranked("hit_rate", ranking.hit_rate),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})
"""Every measure by its name."""
