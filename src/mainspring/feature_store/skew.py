"""The skew report: was what serving saw what the offline store says it should have seen?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.columns import Array, from_arrow
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.schema import Status, Type
from mainspring.spec import System

RELATIVE = 1e-9
_ABSOLUTE = 1e-12


@dataclass(frozen=True, slots=True)
class Skew:
    """Requests and values compared, and the differing values per feature (only features that have any).

    Values that were served as defaults because the store was late are not compared; ``unavailable`` counts them.
    """

    requests: int
    values: int
    differing: Mapping[str, int]
    unavailable: int

    @property
    def differences(self) -> int:
        """Differing values over all features."""
        return sum(self.differing.values())


def skew(system: System, predictions: pa.Table, store: OfflineStore) -> Skew:
    """Recompute every logged feature value for the same instant, as known then, and compare.

    Integers, text and nulls must be equal, floats within 1e-9 relative. ``predictions`` is a table of the prediction log
    whose rows were made under ``system``.
    """
    request = {name: predictions.column(f"request.{name}") for name in system.request.columns.names}
    questions = pa.table({**request, AS_OF: predictions.column("as_of")})
    offline = store.features(questions)
    differing: dict[str, int] = {}
    compared = unavailable = 0
    for feature in system.features:
        served = from_arrow(predictions.column(f"feature.{feature.name}"), feature.type)
        judged = predictions.column(f"status.{feature.name}").to_numpy() != Status.UNAVAILABLE
        compared += int(judged.sum())
        unavailable += int((~judged).sum())
        wrong = int((~same(served, offline[feature.name], feature.type) & judged).sum())
        if wrong:
            differing[feature.name] = wrong
    return Skew(len(predictions), compared, differing, unavailable)


def same(served: Array, offline: Array, type_: Type) -> npt.NDArray[np.bool_]:
    """Where two columns of one feature agree, as an array of shape ``(n,)``."""
    if type_ == Type.FLOAT:
        close = np.isclose(served, offline.astype(np.float64), rtol=RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        return np.asarray(close, dtype=np.bool_)
    return np.array([_equal(left, right) for left, right in zip(served.tolist(), offline.tolist(), strict=True)], dtype=np.bool_)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=RELATIVE, abs_tol=_ABSOLUTE)
    return bool(left == right)
