"""The prediction table, cut into windows and turned into arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

_FEATURE = "feature."


def split(table: pa.Table, width: int, column: str = "as_of") -> Iterator[tuple[int, int, pa.Table]]:
    """The windows ``[start, end)`` of ``width`` microseconds on the UTC grid that hold rows, by time, each with its rows.

    ``column`` is int64 microseconds without nulls; the rows of a window keep their order.
    """
    import pyarrow as pa

    number = table[column].to_numpy() // width
    order = np.argsort(number, kind="stable")
    table = table.take(pa.array(order))
    numbers, first = np.unique(number[order], return_index=True)
    for index, start, stop in zip(numbers.tolist(), first, [*first[1:], len(order)], strict=False):
        yield index * width, (index + 1) * width, table.slice(start, stop - start)


def feature_arrays(table: pa.Table) -> dict[str, NDArray[Any]]:
    """The ``feature.*`` columns without their prefix: text as object arrays (None missing), the rest as float64 (NaN missing)."""
    names = [name for name in table.column_names if name.startswith(_FEATURE)]
    return {name.removeprefix(_FEATURE): _array(table[name]) for name in names}


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kinds.is_string(column.type) or kinds.is_large_string(column.type) or kinds.is_null(column.type):
        return np.array(column.to_pylist(), dtype=object)
    numbers: NDArray[Any] = column.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy()
    return numbers
