"""Training skew: what a training set would hold that serving could not have known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.columns import Array
from mainspring.feature_store.offline import OfflineStore
from mainspring.feature_store.skew import same
from mainspring.schema import Type
from mainspring.spec import System

_NUMBERS = (Type.INT, Type.FLOAT, Type.BOOL)


@dataclass(frozen=True, slots=True)
class Flattered:
    """How one feature changes in hindsight: ``differing`` rows, and its absolute correlation (Pearson) with the label, both ways.

    ``as_known`` and ``in_hindsight`` are over the rows that have a label and the value both ways; None where that is undefined.
    """

    differing: int
    as_known: float | None
    in_hindsight: float | None


@dataclass(frozen=True, slots=True)
class Hindsight:
    """``rows`` questions with features as known when they were asked against features from all facts; only those that differ."""

    rows: int
    features: Mapping[str, Flattered]


def hindsight(system: System, questions: pa.Table, store: OfflineStore, *, known_until: int) -> Hindsight:
    """How much late facts would flatter a training set of ``questions`` that counted them, known by ``known_until``."""
    known, all_facts = (store.features(questions, known_as_of=as_known, known_until=known_until) for as_known in (True, False))
    label = np.asarray(store.labels(questions, known_until=known_until).column("label").to_numpy(), dtype=np.float64)
    found: dict[str, Flattered] = {}
    for feature in system.features:
        differs = ~same(known[feature.name], all_facts[feature.name], feature.type)
        if differs.any():
            pair = _correlations(known[feature.name], all_facts[feature.name], label) if feature.type in _NUMBERS else (None, None)
            found[feature.name] = Flattered(int(differs.sum()), *pair)
    return Hindsight(len(questions), found)


def _correlations(known: Array, all_facts: Array, label: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    columns = [np.array([np.nan if value is None else value for value in one.tolist()], dtype=np.float64) for one in (known, all_facts)]
    both = ~np.isnan(columns[0]) & ~np.isnan(columns[1]) & ~np.isnan(label)
    first, second = (_correlation(column[both], label[both]) for column in columns)
    return first, second


def _correlation(values: npt.NDArray[np.float64], label: npt.NDArray[np.float64]) -> float | None:
    if len(values) < 2 or not values.std() or not label.std():
        return None
    return float(abs(np.corrcoef(values, label)[0, 1]))
