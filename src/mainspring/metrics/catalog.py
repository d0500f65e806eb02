"""The measures by name: what a declaration may bound and an evaluation computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mainspring.metrics import calibration, classification, multiclass, ranking, regression

Direction = Literal["higher", "lower", "zero", "level"]
Kind = Literal["regression", "interval", "quantile", "binary", "multiclass", "ranking"]

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
    """A measure: ``function(*arrays, **options)`` with the arrays that `needs` names gives one float.

    ``better`` is the direction: higher, lower, closest to zero, or closest to the declared level. ``options`` are the keywords
    that it takes. With ``probability`` the scores must be probabilities; otherwise only their order, or their value, counts.
    ``by_query`` gives the values of a ranking measure whose mean it is: its queries are what an interval draws.
    """

    name: str
    function: Callable[..., float]
    better: Direction
    kind: Kind
    options: tuple[str, ...] = ()
    probability: bool = False
    by_query: Callable[..., NDArray[np.float64]] | None = None

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


def _ranked(name: str, by_query: Callable[..., NDArray[np.float64]], *options: str) -> Metric:
    def mean(*arrays: NDArray[Any], **chosen: Any) -> float:
        values = by_query(*arrays, **chosen)
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    return Metric(name, mean, "higher", "ranking", ("k", *options), by_query=by_query)


_CUT = ("threshold", "alert_rate")
_ALL = (
    Metric("mae", regression.mae, "lower", "regression"),
    Metric("rmse", regression.rmse, "lower", "regression"),
    Metric("bias", regression.bias, "zero", "regression"),
    Metric("pinball", regression.pinball, "lower", "quantile", ("quantile",)),
    Metric("coverage", regression.coverage, "level", "interval"),
    Metric("log_loss", classification.log_loss, "lower", "binary", probability=True),
    Metric("brier", classification.brier, "lower", "binary", probability=True),
    Metric("calibration_error", calibration.calibration_error, "lower", "binary", ("bins",), probability=True),
    Metric("roc_auc", classification.roc_auc, "higher", "binary"),
    Metric("average_precision", classification.average_precision, "higher", "binary"),
    Metric("precision", classification.precision, "higher", "binary", _CUT),
    Metric("recall", classification.recall, "higher", "binary", _CUT),
    Metric("f1", classification.f1, "higher", "binary", _CUT),
    Metric("mcc", classification.mcc, "higher", "binary", _CUT),
    Metric("accuracy", classification.accuracy, "higher", "binary", ("threshold",)),
    Metric("multiclass_log_loss", multiclass.multiclass_log_loss, "lower", "multiclass", probability=True),
    Metric("multiclass_accuracy", multiclass.multiclass_accuracy, "higher", "multiclass"),
    Metric("macro_f1", multiclass.macro_f1, "higher", "multiclass"),
    _ranked("ndcg", ranking.ndcg, "gains", "empty"),
    _ranked("map", ranking.average_precision_at),
    _ranked("mrr", ranking.reciprocal_rank),
    _ranked("recall_at", ranking.recall_at),
    _ranked("precision_at", ranking.precision_at),
    _ranked("hit_rate", ranking.hit_rate),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})
"""Every measure by its name."""
