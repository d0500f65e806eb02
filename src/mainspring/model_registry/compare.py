"""What differs between two versions of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mainspring.model_registry.manifest import ModelManifest
from mainspring.model_registry.records import Version

Changes = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Difference:
    """From ``first`` to ``second`` (ids): only what differs, each as (before, after), None where there is nothing.

    ``features`` maps names to ``added``, ``removed`` or ``changed`` (another definition), ``metrics`` to (before, after, after less
    before); nested metrics have dotted names. ``dataset`` has the id and what the data sets' own manifests say.
    """

    first: str
    second: str
    features: Mapping[str, str]
    schema: Changes
    parameters: Changes
    metrics: Mapping[str, tuple[Any, Any, float | None]]
    dataset: Changes
    environment: Changes
    other: Changes


def compare(first: Version, second: Version, first_data: Mapping[str, Any], second_data: Mapping[str, Any]) -> Difference:
    """What differs between two models, with the manifests of the data sets they were trained on.

    Raises:
        RegistryError: one of them has no manifest of a model.
    """
    before, after = ModelManifest.of(first), ModelManifest.of(second)
    metrics = _changes(before.metrics, after.metrics)
    single = ("system", "code", "seed", "seconds", "bytes", "latency", "card", "licence", "note", "made_from")
    return Difference(
        first.id,
        second.id,
        {name: _kind(pair) for name, pair in _changes(before.features, after.features).items()},
        _changes(before.schema, after.schema),
        _changes(before.parameters, after.parameters),
        {name: (*pair, _less(*pair)) for name, pair in metrics.items()},
        _changes({"id": before.dataset, **first_data}, {"id": after.dataset, **second_data}),
        _changes(before.environment, after.environment),
        _changes({name: getattr(before, name) for name in single}, {name: getattr(after, name) for name in single}),
    )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    first, second = _flat(before), _flat(after)
    names = [*first, *(name for name in second if name not in first)]
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _kind(pair: tuple[Any, Any]) -> str:
    return "added" if pair[0] is None else "removed" if pair[1] is None else "changed"


def _less(before: Any, after: Any) -> float | None:
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (before, after))
    return after - before if numbers else None
