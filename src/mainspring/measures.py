"""The measures by name: what a declaration may bound. How each is computed stands in `mainspring.metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Direction = Literal["higher", "lower", "zero", "level"]
Kind = Literal["regression", "interval", "quantile", "binary", "multiclass", "ranking"]

OF_TASK: Mapping[str, tuple[Kind, ...]] = MappingProxyType(
    {"regression": ("regression", "interval", "quantile"), "binary": ("binary",), "multiclass": ("multiclass",), "ranking": ("ranking",)}
)
"""The kinds of measures that fit the answers of a task."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What is known of a measure by its name.

    ``better`` is the direction: higher, lower, closest to zero, or closest to the declared level. ``options`` are the keywords
    that it takes, ``needed`` those of which exactly one must be given. With ``probability`` the scores must be probabilities;
    otherwise only their order, or their value, counts.
    """

    name: str
    better: Direction
    kind: Kind
    options: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    probability: bool = False


_CUT = ("threshold", "alert_rate")
_ALL = (
    Measure("mae", "lower", "regression"),
    Measure("rmse", "lower", "regression"),
    Measure("bias", "zero", "regression"),
    Measure("pinball", "lower", "quantile", ("quantile",), ("quantile",)),
    Measure("coverage", "level", "interval"),
    Measure("log_loss", "lower", "binary", probability=True),
    Measure("brier", "lower", "binary", probability=True),
    Measure("calibration_error", "lower", "binary", ("bins",), probability=True),
    Measure("roc_auc", "higher", "binary"),
    Measure("average_precision", "higher", "binary"),
    *(Measure(name, "higher", "binary", _CUT, _CUT) for name in ("precision", "recall", "f1", "mcc")),
    Measure("accuracy", "higher", "binary", ("threshold",)),
    Measure("multiclass_log_loss", "lower", "multiclass", probability=True),
    Measure("multiclass_accuracy", "higher", "multiclass"),
    Measure("macro_f1", "higher", "multiclass"),
    Measure("ndcg", "higher", "ranking", ("k", "gains", "empty")),
    *(Measure(name, "higher", "ranking", ("k",)) for name in ("map", "mrr", "recall_at", "precision_at", "hit_rate")),
)

MEASURES: Mapping[str, Measure] = MappingProxyType({measure.name: measure for measure in _ALL})
"""Every measure by its name."""


def labelled(name: str, options: Mapping[str, object]) -> str:
    """A measure with its options, as it is shown and as trackers take it: ``recall at alert_rate 0.005``."""
    chosen = " ".join(f"{option} {value}" for option, value in sorted(options.items()))
    return f"{name} at {chosen}" if chosen else name
