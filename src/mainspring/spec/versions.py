"""What a feature is, as a hash of all that its values depend on and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.spec.aggregate import Aggregate
from mainspring.spec.codec import code_hash
from mainspring.spec.feature import Column, Feature, Function
from mainspring.spec.source import Source


def feature_versions(features: Sequence[Feature], request: Source) -> dict[str, str]:
    """The version of each feature: 16 hex digits over its definition, its code and those of everything it is made from.

    Descriptions, owners and tags change no version, nor does a source's other columns.
    """
    known = {feature.name: feature for feature in features}
    versions: dict[str, str] = {}
    for feature in features:
        _version(feature, known, request, versions)
    return versions


def _version(feature: Feature, known: Mapping[str, Feature], request: Source, versions: dict[str, str]) -> str:
    if feature.name not in versions:
        versions[feature.name] = _hash(_definition(feature, known, request, versions))
    return versions[feature.name]


def _definition(feature: Feature, known: Mapping[str, Feature], request: Source, versions: dict[str, str]) -> Any:
    if isinstance(feature, Column):
        return ["column", _column(request, feature.name), feature.default]
    if isinstance(feature, Function):
        inputs = [_version(known[name], known, request, versions) if name in known else _column(request, name) for name in feature.inputs]
        return ["function", code_hash(feature.function), feature.type, feature.default, inputs]
    view, source = feature.view, feature.view.source
    fold = [feature.function, feature.column, feature.argument, feature.window, feature.max_age, feature.where, feature.by, feature.default]
    times = [source.kind, source.event_time, source.known_time, source.event_id]
    columns = [_column(source, name) for name in (*view.columns, *feature.columns)]
    keys = [_column(request, name) for name in view.on]
    return ["aggregate", source.name, times, fold, columns, keys]


def _column(source: Source, name: str) -> Any:
    """A column of a source: its field, or the function that derives it with what that reads."""
    derived = next((function for function in source.derive if function.name == name), None)
    if derived is None:
        field = source.schema[name]
        return [source.name, name, field.type, field.nullable]
    return [source.name, name, code_hash(derived.function), derived.type, [_column(source, one) for one in derived.inputs]]


def origins(feature: Feature, features: Sequence[Feature], request: Source) -> tuple[str, ...]:
    """The source columns that a feature's values come from, as ``source.column``, in order."""
    known = {one.name: one for one in features}
    found: dict[str, None] = {}
    _collect(feature, known, request, found)
    return tuple(sorted(found))


def _collect(feature: Feature, known: Mapping[str, Feature], request: Source, found: dict[str, None]) -> None:
    if isinstance(feature, Column):
        found |= _written(request, feature.name)
    elif isinstance(feature, Aggregate):
        for name in (*feature.view.columns, *feature.columns, feature.view.source.event_time):
            found |= _written(feature.view.source, name)
    else:
        for name in feature.inputs:
            if name in known:
                _collect(known[name], known, request, found)
            else:
                found |= _written(request, name)


def _written(source: Source, name: str) -> dict[str, None]:
    derived = next((function for function in source.derive if function.name == name), None)
    if derived is None:
        return {f"{source.name}.{name}": None}
    return {key: None for one in derived.inputs for key in _written(source, one)}


def _hash(definition: Any) -> str:
    return hashlib.sha256(json.dumps(definition).encode()).hexdigest()[:16]
