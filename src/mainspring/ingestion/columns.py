"""The check of a whole Arrow column against its rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.clock import find_zone, parse_instant
from mainspring.errors import DataError
from mainspring.ingestion.values import (
    INT_MAX,
    INT_MIN,
    IS_EMPTY,
    IS_NULL,
    LATEST,
    MOST_EXACT,
    NOT_A_ZONE,
    NOT_AN_INSTANT,
    NOT_FINITE,
    NOT_UTF8,
    Rule,
)
from mainspring.schema import Type, arrow_type

Mask = npt.NDArray[np.bool_]

NOT_WHOLE = "must be a whole number"
TOO_FINE = "is finer than a microsecond"
LOST_DIGITS = "came as a float beyond 2**53, where whole numbers lose digits; give it as an integer"

_ACCEPTED = {
    Type.STR: "text",
    Type.INT: "integers, or floats that are whole",
    Type.FLOAT: "floats or integers",
    Type.BOOL: "booleans",
    Type.INSTANT: "timestamps, dates, ISO 8601 text or int64 microseconds",
}
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and a mask of shape ``(rows,)`` with the rows where it is."""

    message: str
    rows: Mask


def check_column(column: pa.ChunkedArray, rule: Rule, source: str) -> tuple[pa.Array, list[Problem]]:
    """The column in the type that stores its field, and the problems of its cells; a cell with a problem may hold anything.

    Raises:
        DataError: the column's type cannot be cast to the field's type without loss.
    """
    array, unreadable = decoded(column)
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    values, problems = _convert(array, rule, source)
    problems = [*unreadable, *problems]
    if not rule.field.nullable:
        problems.insert(0, Problem(IS_NULL, nulls))
    problems += _contents(values, rule, ~nulls)
    if rule.allowed:
        known = pc.is_in(values, pa.array(rule.allowed, values.type)).to_numpy(zero_copy_only=False)
        problems.append(Problem(rule.not_allowed, ~nulls & ~known))
    return values, problems


def decoded(column: pa.ChunkedArray) -> tuple[pa.Array, list[Problem]]:
    """The column as one plain array, text that is no UTF-8 replaced by something readable, and where that was."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not is_text(array.type) or _is_ascii(array):
        return array, []
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        given = array.cast(pa.large_binary()).to_pylist()
        texts = [None if one is None else one.decode(errors="backslashreplace") for one in given]
        wrong = [one is not None and one.decode(errors="ignore").encode() != one for one in given]
        return pa.array(texts, pa.string()), [Problem(NOT_UTF8, np.array(wrong, dtype=np.bool_))]
    return array, []


def _is_ascii(array: pa.Array) -> bool:
    """Whether all of a text array is ASCII: ten times as fast as to validate it."""
    if not len(array) or pa.types.is_string_view(array.type):
        return False
    _, offsets, data = array.buffers()
    width = np.dtype(np.int64 if pa.types.is_large_string(array.type) else np.int32)
    ends = np.frombuffer(offsets, width, len(array) + 1, array.offset * width.itemsize)
    return data is None or bytes(memoryview(data)[ends[0] : ends[-1]]).isascii()


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is text of any layout."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _convert(array: pa.Array, rule: Rule, source: str) -> tuple[pa.Array, list[Problem]]:
    kind, type_ = array.type, rule.field.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    text = is_text(kind)
    if pa.types.is_null(kind):
        return pa.nulls(len(array), arrow_type(type_)), []
    if (type_ == Type.STR and text) or (type_ == Type.BOOL and pa.types.is_boolean(kind)):
        return array.cast(arrow_type(type_)), []
    if type_ == Type.FLOAT and numeric:
        return array.cast(pa.float64(), safe=False), []
    if type_ == Type.INT and numeric:
        return _integers(array, rule)
    if type_ == Type.INSTANT and (text or kind == pa.int64() or pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return _instants_of_text(array) if text else _instants(array)
    raise DataError(
        f"Source '{source}', column '{rule.field.name}': the type {kind} is not {type_}. Give it as {_ACCEPTED[type_]}, "
        "or change the type in the source's schema."
    )


def _contents(values: pa.Array, rule: Rule, filled: Mask) -> list[Problem]:
    if rule.field.type == Type.BOOL:
        return []
    if rule.field.type == Type.STR:
        empty = [Problem(IS_EMPTY, _in(values, [""]))] if rule.is_id else []
        return [*empty, Problem(NOT_A_ZONE, _in(values, _unknown_zones(values)))] if rule.field.zone else empty
    numbers, (low, high) = _numbers(values), rule.limits
    unfit = [Problem(NOT_FINITE, filled & ~np.isfinite(numbers))] if rule.field.type == Type.FLOAT else []
    return [*unfit, Problem(rule.too_low, filled & (numbers < low)), Problem(rule.too_high, filled & (numbers > high))]


def _integers(array: pa.Array, rule: Rule) -> tuple[pa.Array, list[Problem]]:
    if array.type == pa.uint64():
        return array.cast(pa.int64(), safe=False), [Problem(rule.too_high, _numbers(array) > INT_MAX)]
    if pa.types.is_integer(array.type):
        return array.cast(pa.int64()), []
    numbers = _numbers(array.cast(pa.float64()))
    finite = np.isfinite(numbers)
    low, high = finite & (numbers < INT_MIN), finite & (numbers >= INT_MAX)
    values = np.where(finite & ~low & ~high, numbers, 0).astype(np.int64)
    problems = [Problem(NOT_FINITE, ~finite), Problem(rule.too_low, low), Problem(rule.too_high, high)]
    lost = finite & (np.abs(numbers) > MOST_EXACT)
    return _like(array, values), [*problems, Problem(NOT_WHOLE, finite & (np.floor(numbers) != numbers)), Problem(LOST_DIGITS, lost)]


def _instants(array: pa.Array) -> tuple[pa.Array, list[Problem]]:
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    unit = array.type.unit if pa.types.is_timestamp(array.type) else "us"
    numbers = _numbers(array.cast(pa.int64()))
    if unit == "ns":
        return _like(array, numbers // 1_000), [Problem(TOO_FINE, numbers % 1_000 != 0)]
    factor = _MICROSECONDS[unit]
    limit = LATEST // factor
    return _like(array, np.clip(numbers, -limit - 1, limit + 1) * factor), []


def _instants_of_text(array: pa.Array) -> tuple[pa.Array, list[Problem]]:
    instants: list[int | None] = []
    unparsable = np.zeros(len(array), dtype=np.bool_)
    for row, text in enumerate(array.to_pylist()):
        try:
            instants.append(None if text is None else parse_instant(text))
        except (ValueError, OverflowError):
            instants.append(0)
            unparsable[row] = True
    return pa.array(instants, type=pa.int64()), [Problem(NOT_AN_INSTANT, unparsable)]


def _in(array: pa.Array, texts: list[str]) -> Mask:
    mask: Mask = pc.is_in(array, pa.array(texts, pa.string())).to_numpy(zero_copy_only=False)
    return mask


def _unknown_zones(array: pa.Array) -> list[str]:
    return [name for name in pc.unique(array).to_pylist() if name is not None and find_zone(name) is None]


def _numbers(array: pa.Array) -> npt.NDArray[Any]:
    """A numeric array as NumPy in its own type, 0 where it is null."""
    return np.asarray(array.fill_null(0).to_numpy(zero_copy_only=False))


def _like(array: pa.Array, values: npt.NDArray[Any]) -> pa.Array:
    """The values with the nulls of ``array``."""
    return pa.array(values, mask=array.is_null().to_numpy(zero_copy_only=False))
