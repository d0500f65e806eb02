"""Fields, types, statuses: the vocabulary that every floor shares.

A batch of events is an Arrow table whose columns are those of its source's schema and derived columns, plus three that
every engine reads: ``_event_id`` (text or int64), ``_event_time`` and ``_known_time`` (int64, microseconds UTC). A known
time that is null is stored as one microsecond before the event time, so that it loses every tie.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from mainspring.errors import DeclarationError

if TYPE_CHECKING:
    import pyarrow as pa

EVENT_ID = "_event_id"
EVENT_TIME = "_event_time"
KNOWN_TIME = "_known_time"
ENVELOPE = (EVENT_ID, EVENT_TIME, KNOWN_TIME)


class Type(enum.StrEnum):
    """Types of a field. ``instant`` is stored as int64 microseconds UTC, ``json`` (lists and maps of aggregates) as text."""

    STR = "str"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    INSTANT = "instant"
    JSON = "json"


class Status(enum.IntEnum):
    """Why a served feature value is what it is."""

    PRESENT = 0
    NULL = 1
    MISSING = 2
    EXPIRED = 3
    UNKNOWN_KEY = 4
    UNAVAILABLE = 5


_PYTHON = {str: Type.STR, int: Type.INT, float: Type.FLOAT, bool: Type.BOOL, datetime: Type.INSTANT, ZoneInfo: Type.STR}


@dataclass(frozen=True, slots=True)
class Field:
    """One column: its name, type, whether it may be null; ``zone`` is text that names an IANA time zone."""

    name: str
    type: Type
    nullable: bool = False
    zone: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """Ordered fields with unique names."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, columns: Mapping[str, Any], place: str) -> Schema:
        """Schema from ``{"amount": float, "country": str | None, "paid_at": datetime}``; ``| None`` makes a field nullable.

        ``ZoneInfo`` is text that names a time zone.

        Raises:
            DeclarationError: a type is not one of str, int, float, bool, datetime, ZoneInfo; ``place`` says where.
        """
        return cls(tuple(_field(name, annotation, place) for name, annotation in columns.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """The field names in order."""
        return tuple(field.name for field in self.fields)

    def __contains__(self, name: object) -> bool:
        return any(field.name == name for field in self.fields)

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def arrow(self) -> pa.Schema:
        """The Arrow schema; instants become int64."""
        import pyarrow as pa

        return pa.schema([pa.field(field.name, arrow_type(field.type)) for field in self.fields])


def arrow_type(type_: Type) -> pa.DataType:
    """The Arrow type that stores a field type."""
    import pyarrow as pa

    types = {Type.INT: pa.int64(), Type.FLOAT: pa.float64(), Type.BOOL: pa.bool_(), Type.INSTANT: pa.int64()}
    return types.get(type_, pa.string())


def python_type(annotation: Any, place: str) -> tuple[Type, bool]:
    """The field type and nullability of a Python annotation.

    Raises:
        DeclarationError: the annotation is not a supported type.
    """
    member, nullable = _member(annotation)
    if member not in _PYTHON:
        raise DeclarationError(
            f"{place}: type {annotation!r} is not known. Use str, int, float, bool, datetime or ZoneInfo, with '| None' if nullable."
        )
    return _PYTHON[member], nullable


def _member(annotation: Any) -> tuple[Any, bool]:
    if not isinstance(annotation, types.UnionType):
        return annotation, False
    members = typing.get_args(annotation)
    rest = [member for member in members if member is not types.NoneType]
    return rest[0] if len(rest) == 1 else annotation, types.NoneType in members


def _field(name: str, annotation: Any, place: str) -> Field:
    if not name.isidentifier() or name.startswith("_") or "__" in name:
        raise DeclarationError(
            f"{place}: column {name!r} is not a usable name. Use letters, digits and single underscores, not starting with one."
        )
    type_, nullable = python_type(annotation, f"{place}, column '{name}'")
    return Field(name, type_, nullable, _member(annotation)[0] is ZoneInfo)
