"""The feature vectors of requests: columns, aggregates from the online store, functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from mainspring.columns import Array, to_array, to_values
from mainspring.errors import MainspringError, RequestError
from mainspring.feature_store.online import OnlineStore, as_columns
from mainspring.schema import Field, Schema, Status
from mainspring.spec import Aggregate, LinearRule, System, View
from mainspring.spec.evaluate import apply_functions

Row = Mapping[str, Any]
_FEW = 4
"""From so many rows on, columns are faster than rows."""


class FeatureRow(msgspec.Struct, frozen=True, gc=False):
    """Values (None for null) and statuses of every feature, in the System's order."""

    values: tuple[Any, ...]
    statuses: bytes


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Feature rows; where one could not be read a `MainspringError` stands in its place.

    ``columns`` hold the same values by feature, each of shape ``(len(rows),)``, whatever in the places of errors; None where they are not
    at hand.
    """

    rows: Sequence[Any]
    columns: Mapping[str, Array] | None = None

    def take(self, places: Sequence[int]) -> FeatureRows:
        """Those at some places, in order, each at most once."""
        if len(places) == len(self.rows):
            return self
        columns = None if self.columns is None else {name: column[places] for name, column in self.columns.items()}
        return FeatureRows([self.rows[place] for place in places], columns)


class FeatureReader:
    """Builds feature rows; what can be worked out from the declaration is worked out once.

    The functions that ``without`` names are not called: they take their defaults with the status ``unavailable``. A ``patient`` one waits
    for the store past the policy's deadline.
    """

    def __init__(self, system: System, online: OnlineStore, without: frozenset[str] = frozenset(), *, patient: bool = False) -> None:
        self._online = online
        self._left_out = without
        self._deadline = None if patient else system.policy.feature_deadline_us
        self._event_time = system.request.event_time
        self._functions = system.functions
        self._aggregates = online.names
        features = [feature.name for feature in system.features]
        self._names = features
        self._values = values_of(features)
        self._present = bytes([Status.PRESENT] * len(features))
        places = {name: place for place, name in enumerate(features)}
        self._read_places = [places[name] for name in online.names]
        self._function_places = {function.name: places[function.name] for function in self._functions if function.name in places}
        self._own_places = [place for place, feature in enumerate(system.features) if not isinstance(feature, Aggregate)]
        wanted = {name for function in self._functions for name in function.inputs}
        types = {name: system.request.columns[name].type for name in system.request.columns.names}
        self._request_inputs = [(name, type_) for name, type_ in types.items() if name in wanted]
        self._request_columns = [(name, type_) for name, type_ in types.items() if name in wanted or name in places]
        by_name = {aggregate.name: aggregate.type for aggregate in system.aggregates}
        self._aggregate_inputs = [(name, by_name[name]) for name in online.names if name in wanted]
        self._keys = sorted({name for view in system.views for name in view.on})
        self._required = [(view, online.names.index(aggregates[0].name)) for view, aggregates in system.views.items() if view.required]

    def read(self, row: Row) -> FeatureRow:
        """Features of one request row as of its event time.

        A function of what the store did not give in time is as unavailable as that, and takes its declared default.

        Raises:
            RequestError: a key of a view declared ``required`` was never seen; the message names the field.
        """
        if not self._aggregates and not self._functions:
            values = self._values(row)
            return FeatureRow(values, self._present if None not in values else self._statuses(values, (), {}))
        served = self._online.read(row, row[self._event_time], self._deadline)
        for view in served.unknown:
            if view.required:
                raise unknown(view, row)
        known = {**row, **dict(zip(self._aggregates, served.values, strict=True))}
        without = self._without(served.statuses) if self._left_out or Status.UNAVAILABLE in served.statuses else {}
        if self._functions:
            known |= self._apply(known, without)
        values = self._values(known)
        return FeatureRow(values, self._statuses(values, served.statuses, without))

    def read_many(self, rows: Sequence[Row]) -> FeatureRows:
        """What `read` gives for each row, or the error that it raises, in one round trip and one call of each function.

        Raises:
            DeclarationError: a function failed, be it for one of the rows alone.
        """
        if len(rows) < _FEW or self._left_out or not (self._aggregates or self._functions):
            return FeatureRows([self._read_or_error(row) for row in rows])
        keys = {name: [row[name] for row in rows] for name in self._keys}
        served = self._online.read_many(keys, [row[self._event_time] for row in rows], self._deadline)
        given = {name: [row[name] for row in rows] for name, _ in self._request_columns}
        columns = {name: to_array(given[name], type_) for name, type_ in self._request_columns} | served.values
        columns |= apply_functions(self._functions, columns)
        lists = [given[name] if name in given else to_values(columns[name]) for name in self._names]
        states = np.full((len(rows), len(self._names)), Status.PRESENT, dtype=np.uint8)
        states[:, self._read_places] = served.statuses
        for place in self._own_places:
            if None in lists[place]:
                states[[number for number, value in enumerate(lists[place]) if value is None], place] = Status.NULL
        width, packed = len(self._names), states.tobytes()
        statuses = [packed[begin : begin + width] for begin in range(0, len(packed), width)]
        answers: list[FeatureRow | MainspringError] = list(map(FeatureRow, zip(*lists, strict=True), statuses))
        unavailable = np.flatnonzero((served.statuses == Status.UNAVAILABLE).any(axis=1)).tolist()
        for number in unavailable:
            read = served.statuses[number].tolist()
            without = self._without(read)
            values = self._values({**{name: column[number] for name, column in zip(self._names, lists, strict=True)}, **without})
            answers[number] = FeatureRow(values, self._statuses(values, read, without))
        for view, place in self._required:
            for number in np.flatnonzero(served.statuses[:, place] == Status.UNKNOWN_KEY).tolist():
                answers[number] = unknown(view, rows[number])
        return FeatureRows(answers, None if unavailable else columns)

    def _read_or_error(self, row: Row) -> FeatureRow | RequestError:
        try:
            return self.read(row)
        except RequestError as error:
            return error

    def _statuses(self, values: tuple[Any, ...], read: Sequence[int], without: Mapping[str, Any]) -> bytes:
        states = bytearray(self._present)
        for place, status in zip(self._read_places, read, strict=False):
            states[place] = status
        if None in values:
            for place in self._own_places:
                if values[place] is None:
                    states[place] = Status.NULL
        for name in without:
            if name in self._function_places:
                states[self._function_places[name]] = Status.UNAVAILABLE
        return bytes(states)

    def _without(self, statuses: Sequence[int]) -> dict[str, Any]:
        """The functions left out, and those that read an aggregate that is unavailable, directly or not, with their defaults."""
        unavailable = {name for name, status in zip(self._aggregates, statuses, strict=True) if status == Status.UNAVAILABLE}
        defaults: dict[str, Any] = {}
        for function in self._functions:
            if function.name in self._left_out or not unavailable.isdisjoint(function.inputs):
                unavailable.add(function.name)
                defaults[function.name] = function.default
        return defaults

    def _apply(self, known: Row, without: Mapping[str, Any]) -> dict[str, Any]:
        inputs = self._request_inputs + self._aggregate_inputs
        columns = as_columns([known[name] for name, _ in inputs], [type_ for _, type_ in inputs])
        named = dict(zip([name for name, _ in inputs], columns, strict=True))
        results = apply_functions([function for function in self._functions if function.name not in without], named)
        return {**without, **{name: _value(result[0]) for name, result in results.items()}}


def beside_rules(system: System) -> frozenset[str]:
    """The functions that no declared rule reads, directly or not."""
    needed = {baseline.on for baseline in system.baselines if isinstance(baseline, LinearRule)}
    for function in reversed(system.functions):
        if function.name in needed:
            needed |= set(function.inputs)
    return frozenset(function.name for function in system.functions) - needed


def values_of(names: Sequence[str]) -> Callable[[Row], tuple[Any, ...]]:
    """A function from a row to its values of these names, in order."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda row: tuple([row[name] for name in names])


def unknown(view: View, row: Row) -> RequestError:
    """The error of a row whose key of a required view was never seen."""
    field = view.on[0]
    return RequestError(field, f"{row[field]!r} is not a known {view.columns[0]}. Known ones are facts of '{view.source.name}'.")


def _value(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain is None or plain != plain else plain


def feature_schema(system: System) -> Schema:
    """The features of a System as fields, in order."""
    return Schema(tuple(Field(feature.name, feature.type, True) for feature in system.features))
