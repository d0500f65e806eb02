"""The skew report: was what serving saw what the offline store says it should have seen, and if not, why?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.columns import Array, from_arrow
from mainspring.feature_store.causes import ABSOLUTE, RELATIVE, Cause, Difference, Versions, equal, explain
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.model_registry.registry import Registry
from mainspring.schema import Status, Type
from mainspring.spec import Feature, Function, System

MOST_EXAMINED = 200
"""Requests whose differing values are explained, taken evenly from all that have any."""
EXAMPLES = 5
"""Differing values that are shown of each feature and cause."""


@dataclass(frozen=True, slots=True)
class Skew:
    """Requests and values compared, and the differing values per feature (only features that have any).

    Values that were served as defaults because the store was late, or computed from such, are not compared; ``unavailable`` counts them.
    ``causes`` counts the causes per feature over the ``examined`` requests, unavailable ones included; ``examples`` are some of each.
    """

    requests: int
    values: int
    differing: Mapping[str, int]
    unavailable: int
    examined: int = 0
    causes: Mapping[str, Mapping[Cause, int]] = field(default_factory=dict)
    examples: Sequence[Difference] = ()

    @property
    def differences(self) -> int:
        """Differing values over all features."""
        return sum(self.differing.values())


def skew(system: System, predictions: pa.Table, store: OfflineStore, versions: Versions | None = None) -> Skew:
    """Recompute every logged feature value for the same instant, as known then, compare, and explain what differs.

    Integers, text and nulls must be equal, floats within 1e-9 relative. ``predictions`` is a table of the prediction log;
    ``versions`` says which version each feature had under the declarations that served (see `served_versions`), without it all
    are taken to be those of ``system``. Features that were not served are left out.
    """
    request = {name: predictions.column(f"request.{name}") for name in system.request.columns.names}
    offline = store.features(pa.table({**request, AS_OF: predictions.column("as_of")}))
    served = {
        one.name: from_arrow(predictions.column(f"feature.{one.name}"), one.type) for one in system.features if _logged(one, predictions)
    }
    late = _unavailable(system, predictions)
    differs = {one.name: ~same(served[one.name], offline[one.name], one.type) for one in system.features if one.name in served}
    given = {name: predictions.column(f"status.{name}").is_valid().to_numpy() for name in served}
    wrong = {name: differs[name] & given[name] & ~late[name] for name in served}
    apart = np.zeros(len(predictions), dtype=np.bool_)
    for name in served:
        apart |= differs[name] & given[name]
    found = np.flatnonzero(apart)
    examined = found[:: -(-len(found) // MOST_EXAMINED)] if len(found) else found
    differences = explain(system, predictions.take(examined), {name: values[examined] for name, values in offline.items()}, store, versions)
    causes: dict[str, Counter[Cause]] = {}
    examples = []
    for one in differences:
        counts = causes.setdefault(one.feature, Counter())
        counts[one.cause] += 1
        if counts[one.cause] <= EXAMPLES:
            examples.append(one)
    return Skew(
        len(predictions),
        sum(int((given[name] & ~late[name]).sum()) for name in served),
        {name: int(rows.sum()) for name, rows in wrong.items() if rows.any()},
        sum(int((given[name] & late[name]).sum()) for name in served),
        len(examined),
        {name: dict(counts) for name, counts in causes.items()},
        tuple(examples),
    )


def served_versions(registry: Registry, name: str) -> dict[str, dict[str, str]]:
    """For each declaration of a system (its hash) the version of each feature, as far as the registry recorded it."""
    versions: dict[str, dict[str, str]] = {}
    for model in registry.versions("model", name):
        versions.setdefault(model.manifest["system"], {}).update(model.manifest["features"])
    for declared in registry.versions("system", name):
        versions.setdefault(declared.manifest["hash"], {}).update(declared.manifest.get("features", {}))
    return versions


def same(served: Array, offline: Array, type_: Type) -> npt.NDArray[np.bool_]:
    """Where two columns of one feature agree, as an array of shape ``(n,)``."""
    if type_ == Type.FLOAT:
        close = np.isclose(served, offline.astype(np.float64), rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
        return np.asarray(close, dtype=np.bool_)
    return np.array([equal(left, right) for left, right in zip(served.tolist(), offline.tolist(), strict=True)], dtype=np.bool_)


def _logged(feature: Feature, predictions: pa.Table) -> bool:
    return f"feature.{feature.name}" in predictions.column_names


def _unavailable(system: System, predictions: pa.Table) -> dict[str, npt.NDArray[np.bool_]]:
    """Where the store had not answered for a feature, or for what a function reads."""
    late = {
        one.name: predictions.column(f"status.{one.name}").fill_null(Status.PRESENT).to_numpy() == Status.UNAVAILABLE
        for one in system.features
        if _logged(one, predictions)
    }
    none = np.zeros(len(predictions), dtype=np.bool_)
    for function in system.functions:
        assert isinstance(function, Function)
        for name in function.inputs:
            late[function.name] = late.get(function.name, none) | late.get(name, none)
    return late
