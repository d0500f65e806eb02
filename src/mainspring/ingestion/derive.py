"""Derived columns: the source's declared functions applied to its columns, one row or many by the same code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import DeclarationError
from mainspring.ingestion.values import INT_MAX, INT_MIN
from mainspring.schema import Schema, Type
from mainspring.spec import Function
from mainspring.spec.feature import Value

Array = npt.NDArray[Any]

_DTYPES = {Type.INT: np.int64, Type.INSTANT: np.int64, Type.BOOL: np.bool_}
_PYTHON: dict[Type, type[Any]] = {Type.STR: str, Type.INT: int, Type.FLOAT: float, Type.BOOL: bool, Type.INSTANT: int}


def to_array(values: Sequence[Value], type_: Type) -> Array:
    """A column as functions see it, of shape ``(len(values),)``.

    Floats are float64 with NaN for null, text is an object array with None for null; int, bool and instant are int64 or
    bool, and an object array with None where a null is among them.
    """
    if type_ == Type.FLOAT:
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    if type_ == Type.STR or None in values:
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    return np.array(values, dtype=_DTYPES[type_])


def derive(functions: Sequence[Function], columns: Mapping[str, Sequence[Value]], schema: Schema) -> dict[str, list[Value]]:
    """The values of each derived column; a result that is not finite, or too large an integer to store, is null.

    Null takes the function's default.

    Raises:
        DeclarationError: a function raised, or returned another shape or type than declared; the message names it.
    """
    inputs = {name: to_array(columns[name], schema[name].type) for function in functions for name in function.inputs}
    return {function.name: _apply(function, [inputs[name] for name in function.inputs]) for function in functions}


def _apply(function: Function, inputs: Sequence[Array]) -> list[Value]:
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(function.function(*inputs))
    except Exception as error:
        raise DeclarationError(f"Derived column '{function.name}' failed: {type(error).__name__}: {error}.") from error
    if result.shape != inputs[0].shape:
        raise DeclarationError(
            f"Derived column '{function.name}' has shape {result.shape} for inputs of shape {inputs[0].shape}. Return one value per row."
        )
    return [_value(function, value) for value in result.tolist()]


def _value(function: Function, value: Any) -> Value:
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or (type(value) is int and not INT_MIN <= value <= INT_MAX):
        return function.default
    try:
        typed: Value = _PYTHON[function.type](value)
    except (TypeError, ValueError):
        typed = None
    if typed != value:
        raise DeclarationError(
            f"Derived column '{function.name}' returned {value!r}, which is not {function.type}. Declare its type with @feature(type=...)."
        )
    return typed
