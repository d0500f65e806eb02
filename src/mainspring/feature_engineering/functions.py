"""On-demand features: the declared functions applied to columns, the same in training and in serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mainspring.errors import DeclarationError
from mainspring.feature_engineering.columns import Array, to_array
from mainspring.schema import Type
from mainspring.spec import Function


def apply_functions(functions: Sequence[Function], columns: Mapping[str, Array]) -> dict[str, Array]:
    """The result of each function in turn, each of shape ``(n,)``; ``functions`` are ordered after their inputs.

    Raises:
        DeclarationError: a function raised, or returned another shape; the message names it.
    """
    known = dict(columns)
    results: dict[str, Array] = {}
    for function in functions:
        inputs = [known[name] for name in function.inputs]
        results[function.name] = known[function.name] = _apply(function, inputs)
    return results


def _apply(function: Function, inputs: Sequence[Array]) -> Array:
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(function.function(*inputs))
    except Exception as error:
        raise DeclarationError(f"Feature function '{function.name}' failed: {type(error).__name__}: {error}.") from error
    if result.shape != inputs[0].shape:
        raise DeclarationError(
            f"Feature function '{function.name}' returned shape {result.shape} for inputs of shape {inputs[0].shape}. Return one value per row."
        )
    if function.type == Type.FLOAT:
        result = result.astype(np.float64, copy=False)
        result = np.where(np.isfinite(result), result, np.nan)
        return result if function.default is None else np.where(np.isnan(result), float(function.default), result)
    if function.default is None or result.dtype != object:
        return result if result.dtype == object or function.type != Type.STR else to_array(result.tolist(), Type.STR)
    return to_array([function.default if value is None else value for value in result.tolist()], function.type)
