"""Columns of values as NumPy arrays.

Floats are float64 with NaN for null, text, lists and maps are object arrays with None for null; int, bool and instant are int64 or bool,
and become object arrays with None only where a null is among them, so that no integer passes through a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.schema import Field, Type, arrow_type

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]

_OBJECTS = (Type.STR, Type.JSON)
_DTYPES = {Type.INT: np.int64, Type.INSTANT: np.int64, Type.BOOL: np.bool_}


def to_array(values: Sequence[Any], type_: Type) -> Array:
    """Python values, None for null, as a column of shape ``(len(values),)``."""
    if type_ == Type.FLOAT:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if type_ in _OBJECTS or None in values:
        column = np.empty(len(values), dtype=object)
        if type_ == Type.JSON:
            for row, value in enumerate(values):
                column[row] = value
        else:
            column[:] = values
        return column
    return np.array(values, dtype=_DTYPES[type_])


def from_arrow(column: pa.ChunkedArray | pa.Array, type_: Type) -> Array:
    """An Arrow column as a NumPy column."""
    import pyarrow as pa

    if type_ == Type.FLOAT:
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())
    if type_ == Type.JSON:
        return to_array([None if text is None else msgspec.json.decode(text) for text in column.to_pylist()], type_)
    if type_ == Type.STR or column.null_count:
        return to_array(column.to_pylist(), type_)
    values = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return np.asarray(values, dtype=_DTYPES[type_])


def fits(found: pa.DataType, type_: Type) -> bool:
    """Whether Arrow values of a type may stand for a field's: whole numbers for floats, nulls for anything, text never for numbers."""
    import pyarrow as pa

    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        return fits(found.value_type, type_)
    if type_ in (Type.INT, Type.INSTANT):
        return bool(pa.types.is_integer(found))
    if type_ == Type.FLOAT:
        return bool(pa.types.is_floating(found) or pa.types.is_integer(found))
    return bool(pa.types.is_boolean(found) if type_ == Type.BOOL else pa.types.is_string(found) or pa.types.is_large_string(found))


def to_arrow(column: Array, field: Field) -> pa.Array:
    """A NumPy column as Arrow, NaN becoming null, lists and maps becoming JSON."""
    import pyarrow as pa

    values = to_json(column.tolist()) if field.type == Type.JSON else column
    return pa.array(values, type=arrow_type(field.type), from_pandas=True)


def to_json(values: Sequence[Any]) -> list[str | None]:
    """Lists and maps as JSON text, null staying null."""
    return [None if value is None else msgspec.json.encode(value).decode() for value in values]


def to_values(column: Array) -> list[Any]:
    """A column as Python values, None for null."""
    if column.dtype == np.float64 and (null := np.isnan(column)).any():
        column = column.astype(object)
        column[null] = None
    values: list[Any] = column.tolist()
    return values
