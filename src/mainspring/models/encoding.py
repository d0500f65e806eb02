"""Feature columns to the float64 matrix that trees read, with what was learned of categories kept beside the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_CATEGORIES = 1_000
LEAST_COUNT = 5
_BLOCK = 4_096


@dataclass(frozen=True, slots=True)
class Encoder:
    """Columns in the order of ``names``; text columns are coded by ``categories``, most frequent first.

    ``medians`` holds the training median of each number column that was never null in training: it stands in for a null
    there, of which the trees know nothing. Every other null, and a category that was not learned, is NaN.
    """

    names: tuple[str, ...]
    categories: Mapping[str, Mapping[str, int]]
    medians: Mapping[str, float]
    _nulls: tuple[float, ...] = field(init=False)
    _tables: tuple[Mapping[str, int] | None, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tables", tuple(self.categories.get(name) for name in self.names))
        object.__setattr__(self, "_nulls", tuple(self.medians.get(name, np.nan) for name in self.names))

    @classmethod
    def fit(cls, columns: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> Encoder:
        """Learn the categories of the text columns (object arrays of str): at most 1,000, each seen at least 5 times."""
        categories: dict[str, dict[str, int]] = {}
        for name in names:
            texts = [value for value in columns[name].tolist() if isinstance(value, str)] if columns[name].dtype == object else []
            if texts or (columns[name].dtype == object and len(columns[name])):
                counted = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))[:MOST_CATEGORIES]
                kept = [text for text, count in counted if count >= LEAST_COUNT]
                if kept or not _numbers(columns[name]):
                    categories[name] = {text: code for code, text in enumerate(kept)}
        numbers = ((name, _coded(columns[name], None)) for name in names if name not in categories)
        medians = {name: float(np.median(column)) for name, column in numbers if len(column) and not np.isnan(column).any()}
        return cls(tuple(names), categories, medians)

    @property
    def categorical(self) -> tuple[str, ...]:
        """The names of the coded columns."""
        return tuple(name for name in self.names if name in self.categories)

    def transform(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """The matrix of shape ``(n, d)`` for columns of shape ``(n,)``."""
        coded = [_coded(columns[name], table) for name, table in zip(self.names, self._tables, strict=True)]
        x = np.empty((len(coded[0]), len(coded)))
        for begin in range(0, len(x), _BLOCK):
            block = x[begin : begin + _BLOCK]
            for place, column in enumerate(coded):
                block[:, place] = column[begin : begin + _BLOCK]
            np.copyto(block, self._nulls, where=np.isnan(block))
        return x

    def transform_row(self, values: Sequence[Any]) -> npt.NDArray[np.float64]:
        """One row of shape ``(d,)`` from values in the order of ``names``, None for null."""
        row = [
            (null if value is None else value) if table is None else table.get(value, null)
            for value, table, null in zip(values, self._tables, self._nulls, strict=True)
        ]
        return np.array(row, dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        categories = {name: list(table) for name, table in self.categories.items()}
        return {"names": list(self.names), "categories": categories, "medians": dict(self.medians)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Encoder:
        """The encoder that `to_dict` wrote."""
        tables = {name: {text: code for code, text in enumerate(texts)} for name, texts in body["categories"].items()}
        return cls(tuple(body["names"]), tables, body["medians"])


def _coded(column: npt.NDArray[Any], table: Mapping[str, int] | None) -> npt.NDArray[np.float64]:
    if table is not None:
        return np.array([table.get(value, np.nan) for value in column.tolist()], dtype=np.float64)
    if column.dtype == object:
        return np.array([np.nan if value is None else value for value in column.tolist()], dtype=np.float64)
    return column.astype(np.float64, copy=False)


def _numbers(column: npt.NDArray[Any]) -> bool:
    return any(isinstance(value, int | float) for value in column.tolist())
