"""The rule of one column, and its check of one value as JSON holds it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mainspring.clock import find_zone, format_instant, parse_instant
from mainspring.errors import RequestError
from mainspring.schema import Field, Type
from mainspring.spec import Source
from mainspring.spec.aggregate import Value
from mainspring.spec.source import Bound

EARLIEST = parse_instant("0001-01-01T00:00:00Z")
LATEST = parse_instant("9999-12-31T23:59:59.999999Z")
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
MOST_EXACT = 2**53

_SHOWN = 5
NOT_FINITE = "must be a finite number"
NOT_UTF8 = "must be text that UTF-8 can hold"
IS_NULL = "is null, and may not be"
NOT_A_ZONE = "must be an IANA time zone, for example America/New_York"
IS_EMPTY = "is empty; an id needs at least one character"
NOT_AN_INSTANT = "must be a date and time in ISO 8601, to the microsecond, for example 2025-03-01T12:00:00Z"

_LIMITS: dict[Type, tuple[float, float]] = {
    Type.INT: (INT_MIN, INT_MAX),
    Type.FLOAT: (-sys.float_info.max, sys.float_info.max),
    Type.INSTANT: (EARLIEST, LATEST),
}
_WANTED = {Type.STR: "text", Type.INT: "a whole number", Type.FLOAT: "a number", Type.BOOL: "true or false"}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number with a fraction", str: "text", list: "an array", dict: "an object"}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a column's values must be: the field, inclusive bounds as numbers, whether it identifies the fact, the only values."""

    field: Field
    low: Bound
    high: Bound
    is_id: bool
    allowed: tuple[Value, ...] = ()

    @property
    def not_allowed(self) -> str:
        """What is wrong with a value that is none of the allowed ones."""
        shown = ", ".join(map(repr, self.allowed[:_SHOWN]))
        return f"must be one of {shown}" + (f" and {len(self.allowed) - _SHOWN} more" if len(self.allowed) > _SHOWN else "")

    @property
    def limits(self) -> tuple[float, float]:
        """The bounds, or where there are none the least and greatest value that the column can store."""
        low, high = _LIMITS[self.field.type]
        return (low if self.low is None else max(self.low, low)), (high if self.high is None else min(self.high, high))

    @property
    def too_low(self) -> str:
        """What is wrong with a value below the limits."""
        return f"must be at least {self._written(self.limits[0])}"

    @property
    def too_high(self) -> str:
        """What is wrong with a value above the limits."""
        return f"must be at most {self._written(self.limits[1])}"

    def _written(self, bound: float) -> str:
        return format_instant(int(bound)) if self.field.type == Type.INSTANT else str(bound)


def rules(source: Source) -> tuple[Rule, ...]:
    """The rules of a source's columns in schema order."""
    return tuple(_rule(source, field) for field in source.schema.fields)


def value_check(rule: Rule) -> Callable[[Any], Value]:
    """A function from a value as JSON holds it to the typed one, instants as microseconds.

    The function raises `RequestError` with the column's name and what is wrong.
    """
    check = {Type.STR: _text, Type.INT: _whole, Type.FLOAT: _number, Type.BOOL: _boolean, Type.INSTANT: _instant}[rule.field.type](rule)
    name, nullable = rule.field.name, rule.field.nullable

    allowed = frozenset(rule.allowed)

    def checked(value: Any) -> Value:
        if value is None:
            if nullable:
                return None
            raise RequestError(name, IS_NULL)
        valid = check(value)
        if allowed and valid not in allowed:
            raise RequestError(name, rule.not_allowed)
        return valid

    return checked


def _rule(source: Source, field: Field) -> Rule:
    bounds = [(low, high) for column, low, high in source.ranges if column == field.name]
    lows = [low for low, _ in bounds if low is not None]
    highs = [high for _, high in bounds if high is not None]
    allowed = next((values for column, values in source.allowed if column == field.name), ())
    return Rule(field, max(lows, default=None), min(highs, default=None), field.name == source.event_id, allowed)


def _wrong(rule: Rule, value: Any) -> RequestError:
    got = _NAMES.get(type(value), type(value).__name__)
    return RequestError(rule.field.name, f"must be {_WANTED[rule.field.type]}, not {got}")


def _outside(rule: Rule, value: float) -> RequestError:
    return RequestError(rule.field.name, rule.too_low if value < rule.limits[0] else rule.too_high)


def _text(rule: Rule) -> Callable[[Any], Value]:
    name, is_id, zone = rule.field.name, rule.is_id, rule.field.zone

    def check(value: Any) -> Value:
        if not isinstance(value, str):
            raise _wrong(rule, value)
        if is_id and not value:
            raise RequestError(name, IS_EMPTY)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise RequestError(name, NOT_UTF8) from error
        if zone and find_zone(value) is None:
            raise RequestError(name, NOT_A_ZONE)
        return value

    return check


def _whole(rule: Rule) -> Callable[[Any], Value]:
    low, high = rule.limits

    def check(value: Any) -> Value:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(rule, value)
        if not low <= value <= high:
            raise _outside(rule, value)
        return value

    return check


def _number(rule: Rule) -> Callable[[Any], Value]:
    name, (low, high) = rule.field.name, rule.limits

    def check(value: Any) -> Value:
        if not isinstance(value, float | int) or isinstance(value, bool):
            raise _wrong(rule, value)
        if not low <= value <= high:
            raise _outside(rule, value) if isinstance(value, int) or math.isfinite(value) else RequestError(name, NOT_FINITE)
        return float(value)

    return check


def _boolean(rule: Rule) -> Callable[[Any], Value]:
    def check(value: Any) -> Value:
        if not isinstance(value, bool):
            raise _wrong(rule, value)
        return value

    return check


def _instant(rule: Rule) -> Callable[[Any], Value]:
    name, (low, high) = rule.field.name, rule.limits

    def check(value: Any) -> Value:
        if not isinstance(value, str | datetime):
            raise RequestError(name, NOT_AN_INSTANT)
        try:
            instant = parse_instant(value)
        except (ValueError, OverflowError) as error:
            raise RequestError(name, NOT_AN_INSTANT) from error
        if not low <= instant <= high:
            raise _outside(rule, instant)
        return instant

    return check
