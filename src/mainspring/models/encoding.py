"""Feature columns to the float64 matrix that trees read, with what was learned of categories kept beside the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.models.protocol import Floats
from mainspring.models.text_scores import TextScores

MOST_CATEGORIES = 1_000
LEAST_COUNT = 5
MEDIAN_ROWS = 100_000
_BLOCK = 4_096


@dataclass(frozen=True, slots=True)
class Encoder:
    """Columns in the order of ``names``; text columns are coded by ``categories``, most frequent first, or scored by ``texts``.

    ``medians`` holds the training median of each number column that was never null in training: it stands in for a null
    there, of which the trees know nothing; of many rows it is that of some 100,000, evenly spread. Every other null, and a category that
    was not learned, is NaN.
    """

    names: tuple[str, ...]
    categories: Mapping[str, Mapping[str, int]]
    medians: Mapping[str, float]
    texts: Mapping[str, TextScores] = field(default_factory=dict)
    _nulls: tuple[float, ...] = field(init=False)
    _tables: tuple[Mapping[str, int] | None, ...] = field(init=False)
    _plain: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tables", tuple(self.categories.get(name) for name in self.columns))
        object.__setattr__(self, "_plain", not self.categories and not self.texts)
        object.__setattr__(self, "_nulls", tuple(self.medians.get(name, np.nan) for name in self.columns))

    @classmethod
    def fit(cls, columns: Mapping[str, npt.NDArray[Any]], names: Sequence[str], texts: Mapping[str, TextScores] | None = None) -> Encoder:
        """Learn the categories of the text columns (object arrays of str): at most 1,000, each seen at least 5 times.

        Columns in ``texts`` are free text, whose scores were learned before.
        """
        texts = texts or {}
        categories: dict[str, dict[str, int]] = {}
        for name in names:
            if name in texts:
                continue
            found = [value for value in columns[name].tolist() if isinstance(value, str)] if columns[name].dtype == object else []
            if found or (columns[name].dtype == object and len(columns[name])):
                counted = sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))[:MOST_CATEGORIES]
                kept = [text for text, count in counted if count >= LEAST_COUNT]
                if kept or not _numbers(columns[name]):
                    categories[name] = {text: code for code, text in enumerate(kept)}
        numbers = ((name, _coded(columns[name], None)) for name in names if name not in categories and name not in texts)
        medians = {name: _middle(column) for name, column in numbers if len(column) and not np.isnan(column).any()}
        return cls(tuple(names), categories, medians, texts)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the matrix: those of ``names``, a text of several scores having one for each, ``body:0``, ``body:1``, ..."""
        return tuple(column for name in self.names for column in self.spread(name))

    @property
    def categorical(self) -> tuple[str, ...]:
        """The names of the coded columns."""
        return tuple(name for name in self.names if name in self.categories)

    def spread(self, name: str) -> tuple[str, ...]:
        """The columns of the matrix that come from one of ``names``."""
        outputs = self.texts[name].outputs if name in self.texts else 1
        return (name,) if outputs == 1 else tuple(f"{name}:{number}" for number in range(outputs))

    def by_feature(self, values: Floats) -> Floats:
        """Values of the columns of the matrix, in the last axis, summed up by feature."""
        starts = np.cumsum([0, *(len(self.spread(name)) for name in self.names)])[:-1]
        return np.asarray(np.add.reduceat(values, starts, axis=-1)) if self.texts else values

    def transform(self, columns: Mapping[str, npt.NDArray[Any]], scores: Mapping[str, Floats] | None = None) -> Floats:
        """The matrix of shape ``(n, d)`` for columns of shape ``(n,)``; those of texts are ``scores``, if given."""
        coded: list[Floats] = []
        for name in self.names:
            if name not in self.texts:
                coded.append(_coded(columns[name], self.categories.get(name)))
            else:
                coded += list((self.texts[name].scores(columns[name]) if scores is None else scores[name]).T)
        x = np.empty((len(coded[0]), len(coded)))
        for begin in range(0, len(x), _BLOCK):
            block = x[begin : begin + _BLOCK]
            for place, column in enumerate(coded):
                block[:, place] = column[begin : begin + _BLOCK]
            if (missing := np.isnan(block)).any():
                np.copyto(block, self._nulls, where=missing)
        return x

    def transform_row(self, values: Sequence[Any]) -> Floats:
        """One row of shape ``(d,)`` from values in the order of ``names``, None for null."""
        return np.array(values if self._plain and None not in values else self._row(values), dtype=np.float64)

    def transform_rows(self, rows: Sequence[Sequence[Any]]) -> Floats:
        """Many such rows as a matrix of shape ``(n, d)``."""
        if self._plain and not any(None in row for row in rows):
            return np.array(rows, dtype=np.float64)
        if self.texts:
            return np.array([self._row(row) for row in rows], dtype=np.float64)
        x = np.empty((len(rows), len(self.names)))
        for place, (column, table, null) in enumerate(zip(zip(*rows, strict=True), self._tables, self._nulls, strict=True)):
            if table is not None:
                x[:, place] = [table.get(value, null) for value in column]
            else:
                x[:, place] = column if None not in column else [null if value is None else value for value in column]
        return x

    def _row(self, values: Sequence[Any]) -> list[float]:
        return [
            (null if value is None else value) if table is None else table.get(value, null)
            for value, table, null in zip(self._read(values) if self.texts else values, self._tables, self._nulls, strict=True)
        ]

    def _read(self, values: Sequence[Any]) -> Iterator[Any]:
        for name, value in zip(self.names, values, strict=True):
            if name in self.texts:
                yield from self.texts[name].score(value).tolist()
            else:
                yield value

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form of all but the texts."""
        categories = {name: list(table) for name, table in self.categories.items()}
        return {"names": list(self.names), "categories": categories, "medians": dict(self.medians)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any], texts: Mapping[str, TextScores] | None = None) -> Encoder:
        """The encoder that `to_dict` wrote, with its ``texts``."""
        tables = {name: {text: code for code, text in enumerate(texts)} for name, texts in body["categories"].items()}
        return cls(tuple(body["names"]), tables, body["medians"], texts or {})


def _coded(column: npt.NDArray[Any], table: Mapping[str, int] | None) -> npt.NDArray[np.float64]:
    if table is not None:
        return np.array([table.get(value, np.nan) for value in column.tolist()], dtype=np.float64)
    if column.dtype == object:
        return np.array([np.nan if value is None else value for value in column.tolist()], dtype=np.float64)
    return column.astype(np.float64, copy=False)


def _middle(column: npt.NDArray[np.float64]) -> float:
    """The median; of evenly spread values where there are many."""
    return float(np.median(column[:: max(1, len(column) // MEDIAN_ROWS)]))


def _numbers(column: npt.NDArray[Any]) -> bool:
    return any(isinstance(value, int | float) for value in column.tolist())
