"""Declared functions applied to columns: the same code in ingestion, in training and in serving."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.columns import Array, to_array
from mainspring.errors import DeclarationError
from mainspring.schema import Type
from mainspring.spec.aggregate import Value
from mainspring.spec.feature import Function

_PYTHON: dict[Type, type[Any]] = {Type.STR: str, Type.INT: int, Type.BOOL: bool, Type.INSTANT: int}
_INT_LIMIT = 2**63


def apply_functions(functions: Sequence[Function], columns: Mapping[str, Array]) -> dict[str, Array]:
    """The result of each function in turn, each of shape ``(n,)``; ``functions`` are ordered after their inputs.

    A float that is not finite, or an integer beyond 64 bits, is null, and null takes the function's default.

    Raises:
        DeclarationError: a function raised, or returned another shape or type than declared; the message names it.
    """
    known = dict(columns)
    results: dict[str, Array] = {}
    with np.errstate(all="ignore"):
        for function in functions:
            results[function.name] = known[function.name] = _apply(function, [known[name] for name in function.inputs])
    return results


def _apply(function: Function, inputs: Sequence[Array]) -> Array:
    try:
        result = np.asarray(function.function(*inputs))
    except Exception as error:
        raise DeclarationError(f"Function '{function.name}' failed: {type(error).__name__}: {error}.") from error
    if result.shape != inputs[0].shape:
        raise DeclarationError(
            f"Function '{function.name}' returned shape {result.shape} for inputs of shape {inputs[0].shape}. Return one value per row."
        )
    if function.type == Type.FLOAT and result.dtype != object:
        floats = result.astype(np.float64, copy=False)
        finite = np.isfinite(floats)
        return floats if finite.all() else np.where(finite, floats, math.nan if function.default is None else function.default)
    return to_array([_typed(function, value) for value in result.tolist()], function.type)


def _typed(function: Function, value: Any) -> Value:
    if (
        value is None
        or (isinstance(value, float) and not math.isfinite(value))
        or (type(value) is int and not -_INT_LIMIT <= value < _INT_LIMIT)
    ):
        return function.default
    try:
        typed: Value = _PYTHON.get(function.type, float)(value)
    except (TypeError, ValueError, OverflowError):
        typed = None
    if typed != value:
        raise DeclarationError(
            f"Function '{function.name}' returned {value!r}, which is not {function.type}. Declare its type with @feature(type=...)."
        )
    return typed
