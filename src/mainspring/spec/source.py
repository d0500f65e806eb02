"""Sources: where facts come from, and what each fact must look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mainspring.clock import parse_instant
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.schema import Field, Schema, Type
from mainspring.spec.aggregate import Value, View
from mainspring.spec.expectation import Expectation, Fixed, Nulls, Unique, columns_of
from mainspring.spec.feature import Column, Function

Bound = int | float | None
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, init=False)
class Source:
    """A stream of facts.

    ``schema`` maps columns to ``str``, ``int``, ``float``, ``bool``, ``datetime`` or ``ZoneInfo`` (text that names a time
    zone), with ``| None`` where null is allowed. ``event_time`` names the column that says when a fact happened,
    ``known_time`` (optional) when it could be known, ``event_id`` the column that identifies it. ``kind='event'`` facts
    count strictly after they happened; rows of a ``kind='table'`` (slowly changing dimensions) count from their timestamp
    on. ``ranges`` bounds numeric and time columns, both ends inclusive, and ``allowed`` lists the only values that a str or
    int column may have; a row or request outside is refused. ``expect`` lists what facts and batches of them must hold to beyond
    that. ``derive`` lists functions of the columns that add columns. ``owner`` and ``tags`` are for the catalog.
    """

    name: str
    schema: Schema
    event_time: str
    event_id: str
    known_time: str | None
    kind: Literal["event", "table"]
    ranges: tuple[tuple[str, Bound, Bound], ...]
    allowed: tuple[tuple[str, tuple[Value, ...]], ...]
    expect: tuple[Expectation, ...]
    derive: tuple[Function, ...]
    description: str
    owner: str
    tags: tuple[str, ...]

    def __init__(
        self,
        name: str,
        schema: Mapping[str, Any] | Schema,
        *,
        event_time: str,
        event_id: str,
        known_time: str | None = None,
        kind: Literal["event", "table"] = "event",
        ranges: Mapping[str, tuple[Any, Any]] | Sequence[tuple[str, Bound, Bound]] = (),
        allowed: Mapping[str, Sequence[Value]] | Sequence[tuple[str, Sequence[Value]]] = (),
        expect: Sequence[Expectation] = (),
        derive: Sequence[Function] = (),
        description: str = "",
        owner: str = "",
        tags: Sequence[str] = (),
    ) -> None:
        place = f"Source '{name}'"
        if not name.isidentifier() or "__" in name or len(name.encode()) > LONGEST_NAME:
            raise DeclarationError(f"{place}: the name must be letters, digits and single underscores, at most {LONGEST_NAME} bytes.")
        fields = schema if isinstance(schema, Schema) else Schema.of(schema, place)
        given = [(column, *pair) for column, pair in ranges.items()] if isinstance(ranges, Mapping) else list(ranges)
        values = {
            "name": name,
            "schema": fields,
            "event_time": event_time,
            "event_id": event_id,
            "known_time": known_time,
            "kind": kind,
            "ranges": tuple((column, _bound(low, place), _bound(high, place)) for column, low, high in given),
            "allowed": tuple((column, tuple(values)) for column, values in dict(allowed).items()),
            "expect": tuple(expect),
            "derive": tuple(derive),
            "description": description,
            "owner": owner,
            "tags": tuple(tags),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        self._validate(place)

    def _validate(self, place: str) -> None:
        if self.kind not in ("event", "table"):
            raise DeclarationError(f"{place}: kind {self.kind!r} is not known. Use 'event' or 'table'.")
        times = [column for column in (self.event_time, self.known_time) if column is not None]
        for column in [*times, self.event_id, *(bound[0] for bound in self.ranges)]:
            self._require(column, place)
        for column in times:
            if self.schema[column].type != Type.INSTANT:
                raise DeclarationError(
                    f"{place}: column '{column}' is {self.schema[column].type}; a time column must be declared as datetime."
                )
        if self.schema[self.event_time].nullable or self.schema[self.event_id].nullable:
            raise DeclarationError(f"{place}: event_time and event_id cannot be nullable.")
        if self.schema[self.event_id].type not in (Type.STR, Type.INT):
            raise DeclarationError(f"{place}: event_id '{self.event_id}' must be str or int.")
        for column, low, high in self.ranges:
            if self.schema[column].type in (Type.STR, Type.BOOL):
                raise DeclarationError(f"{place}: column '{column}' is {self.schema[column].type} and cannot have a range.")
            if low is not None and high is not None and low > high:
                raise DeclarationError(f"{place}: the range of '{column}' is empty: {low} > {high}.")
        for column, values in self.allowed:
            self._require(column, place)
            if self.schema[column].type not in (Type.STR, Type.INT):
                raise DeclarationError(f"{place}: column '{column}' is {self.schema[column].type}; allowed= needs str or int.")
            wanted = str if self.schema[column].type == Type.STR else int
            if not values or not all(type(value) is wanted for value in values):
                raise DeclarationError(f"{place}: the allowed values of '{column}' must be {wanted.__name__}, and at least one.")
        self._validate_expectations(place)
        for function in self.derive:
            if function.name in self.schema:
                raise DeclarationError(f"{place}: derived column '{function.name}' has the name of a column of the schema.")
            for column in function.inputs:
                self._require(column, f"{place}, derived column '{function.name}'")

    def _validate_expectations(self, place: str) -> None:
        for expectation in self.expect:
            where = f"{place}, {expectation}"
            for column in columns_of(expectation):
                self._require(column, where)
            if isinstance(expectation, Nulls) and not self.schema[expectation.column].nullable:
                raise DeclarationError(f"{where}: the column is never null. Declare it nullable with '| None', or leave this out.")
            if isinstance(expectation, Unique | Fixed) and self.event_id in columns_of(expectation):
                raise DeclarationError(f"{where}: '{self.event_id}' is the event id, which may repeat. Name other columns.")
            if self.expect.count(expectation) > 1:
                raise DeclarationError(f"{where}: it is declared twice. Leave one out.")

    def _require(self, column: str, place: str) -> None:
        if column not in self.schema:
            raise DeclarationError(f"{place}: there is no column '{column}'.{did_you_mean(column, self.schema.names)}")

    @property
    def columns(self) -> Schema:
        """The schema with the derived columns after it."""
        return Schema((*self.schema.fields, *(Field(function.name, function.type, True) for function in self.derive)))

    def __getitem__(self, column: str) -> Column:
        """The request column as a feature: ``payments['amount']``."""
        if column not in self.columns:
            raise DeclarationError(f"Source '{self.name}': there is no column '{column}'.{did_you_mean(column, self.columns.names)}")
        return Column(column, self.columns[column].type)

    def per(self, *columns: str, on: str | Sequence[str] | None = None, name: str | None = None, required: bool = False) -> View:
        """The facts per key, the start of every aggregate.

        ``on`` names the request's columns where they differ from ``columns``; ``name`` replaces the request columns'
        names in the features' names; ``required`` refuses a request with a key that was never seen. Without columns all
        facts belong to one key, and the view needs a ``name``.
        """
        if not columns and name is None:
            raise DeclarationError(f"Source '{self.name}'.per(): name the key columns, or give name='...' for a view of all facts.")
        for column in columns:
            self[column]
        matched = (on,) if isinstance(on, str) else tuple(on or columns)
        if len(matched) != len(columns):
            raise DeclarationError(
                f"Source '{self.name}'.per({', '.join(columns)}): 'on' names {len(matched)} columns for {len(columns)} keys."
            )
        return View(self, columns, matched, name or "_".join(matched), required)


def _bound(value: Value | datetime, place: str) -> Bound:
    try:
        return parse_instant(value) if isinstance(value, str | datetime) else value
    except ValueError as error:
        raise DeclarationError(f"{place}: the bound {value!r} is neither a number nor a date and time in ISO 8601.") from error
