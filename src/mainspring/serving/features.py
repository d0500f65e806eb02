"""The feature vector of one request: columns, aggregates from the online store, functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mainspring.errors import RequestError
from mainspring.feature_store.online import OnlineStore, as_columns
from mainspring.schema import Field, Schema, Status
from mainspring.spec import Aggregate, Column, System
from mainspring.spec.evaluate import apply_functions


class FeatureRow(NamedTuple):
    """Values (None for null) and statuses of every feature, in the System's order."""

    values: tuple[Any, ...]
    statuses: bytes


class FeatureReader:
    """Builds feature rows; what can be worked out from the declaration is worked out once."""

    def __init__(self, system: System, online: OnlineStore) -> None:
        self._online = online
        self._deadline = system.policy.feature_deadline_us
        self._event_time = system.request.event_time
        self._functions = system.functions
        self._features = system.features
        self._names = online.names
        wanted = {name for function in self._functions for name in function.inputs}
        types = {name: system.request.columns[name].type for name in system.request.columns.names}
        self._request_inputs = [(name, type_) for name, type_ in types.items() if name in wanted]
        by_name = {aggregate.name: aggregate.type for aggregate in system.aggregates}
        self._aggregate_inputs = [(i, name, by_name[name]) for i, name in enumerate(online.names) if name in wanted]

    def read(self, row: Mapping[str, Any]) -> FeatureRow:
        """Features of one request row as of its event time.

        A function of what the store did not give in time is as unavailable as that, and takes its declared default.

        Raises:
            RequestError: a key of a view declared ``required`` was never seen; the message names the field.
        """
        served = self._online.read(row, row[self._event_time], self._deadline)
        for view in served.unknown:
            if view.required:
                field = view.on[0]
                raise RequestError(field, f"{row[field]!r} is not a known {view.columns[0]}. Known ones are facts of '{view.source.name}'.")
        values = dict(zip(self._names, served.values, strict=True))
        statuses = dict(zip(self._names, served.statuses, strict=True))
        late = Status.UNAVAILABLE in served.statuses
        without = self._without({name for name, status in statuses.items() if status == Status.UNAVAILABLE}) if late else {}
        computed = self._apply(row, values, without)
        statuses |= dict.fromkeys(without, Status.UNAVAILABLE)
        return FeatureRow(*_ordered(self._features, row, values, statuses, computed))

    def _without(self, unavailable: set[str]) -> dict[str, Any]:
        """The functions that read, directly or not, one of these aggregates, with their declared defaults."""
        defaults: dict[str, Any] = {}
        for function in self._functions:
            if not unavailable.isdisjoint(function.inputs):
                unavailable.add(function.name)
                defaults[function.name] = function.default
        return defaults

    def _apply(self, row: Mapping[str, Any], values: Mapping[str, Any], without: Mapping[str, Any]) -> dict[str, Any]:
        names = [name for name, _ in self._request_inputs] + [name for _, name, _ in self._aggregate_inputs]
        types = [type_ for _, type_ in self._request_inputs] + [type_ for _, _, type_ in self._aggregate_inputs]
        held = [row[name] for name, _ in self._request_inputs] + [values[name] for _, name, _ in self._aggregate_inputs]
        columns = dict(zip(names, as_columns(held, types), strict=True))
        results = apply_functions([function for function in self._functions if function.name not in without], columns)
        return {**without, **{name: _value(result[0]) for name, result in results.items()}}


def _ordered(features: Any, row: Any, values: Any, statuses: Any, computed: Any) -> tuple[tuple[Any, ...], bytes]:
    ordered = []
    states = bytearray()
    for feature in features:
        name = feature.name
        if isinstance(feature, Aggregate):
            value, status = values[name], statuses[name]
        else:
            value = row[name] if isinstance(feature, Column) else computed[name]
            status = statuses.get(name, Status.NULL if value is None else Status.PRESENT)
        ordered.append(value)
        states.append(status)
    return tuple(ordered), bytes(states)


def _value(value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    return None if plain is None or plain != plain else plain


def feature_schema(system: System) -> Schema:
    """The features of a System as fields, in order."""
    return Schema(tuple(Field(feature.name, feature.type, True) for feature in system.features))
