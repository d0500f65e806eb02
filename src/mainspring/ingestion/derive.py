"""Derived columns: the source's declared functions applied to its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mainspring.columns import to_array, to_values
from mainspring.schema import Schema
from mainspring.spec import Function
from mainspring.spec.aggregate import Value
from mainspring.spec.evaluate import apply_functions


def derive(functions: Sequence[Function], columns: Mapping[str, Sequence[Value]], schema: Schema) -> dict[str, list[Value]]:
    """The values of each derived column, None for null.

    Raises:
        DeclarationError: a function raised, or returned another shape or type than declared; the message names it.
    """
    inputs = {name: to_array(columns[name], schema[name].type) for function in functions for name in function.inputs}
    return {name: to_values(column) for name, column in apply_functions(functions, inputs).items()}
