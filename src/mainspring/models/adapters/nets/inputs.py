"""The first layer of a tabular net: numbers as they are, category codes as learned vectors, crosses as learned scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.models.adapters.nets.columns import LearnedColumns
from mainspring.models.adapters.nets.runtime import nn, torch

MOST_CROSSED = 100_000


class Inputs(nn.Module):
    """From the matrix of `LearnedColumns.apply`, of shape ``(n, k)``, to ``(n, deep + wide)``.

    The deep part is the numbers, the indicators and a vector per category column. The wide part, if ``scores`` is above 0, is a table of
    ``scores`` numbers per category column and per cross of two: one for each pair of their codes, beyond 100,000 pairs shared by remainder.
    """

    def __init__(self, columns: LearnedColumns, vector: int, scores: int = 0, crosses: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__()
        self.numbers = len(columns.numbers) + len(columns.indicated)
        categorical, sizes = list(columns.sizes), list(columns.sizes.values())
        self.pairs = [(categorical.index(a), categorical.index(b)) for a, b in crosses]
        self.sizes, self.scores = sizes, scores
        self.vectors = nn.ModuleList(_table(size, min(vector, size)) for size in sizes)
        wide = [*sizes, *(min(sizes[a] * sizes[b], MOST_CROSSED) for a, b in self.pairs)] if scores else []
        self.wide_tables = nn.ModuleList(_table(size, scores, spread=0.0) for size in wide)
        self.deep = self.numbers + sum(table.embedding_dim for table in self.vectors)
        self.width = self.deep + scores * len(wide)

    def forward(self, x: Any) -> Any:
        """The parts side by side."""
        return torch.cat([x[:, : self.numbers], *(table(codes) for table, codes in self.read(x))], dim=1)

    def read(self, x: Any) -> list[tuple[Any, Any]]:
        """Every table in the order of the output, with the code of each row of ``x`` in it."""
        codes = x[:, self.numbers :].round().long().unbind(1)
        crossed = [(codes[a] * self.sizes[b] + codes[b]) % MOST_CROSSED for a, b in self.pairs]
        return [*zip(self.vectors, codes, strict=True), *zip(self.wide_tables, [*codes, *crossed], strict=False)]

    def owners(self, columns: LearnedColumns) -> npt.NDArray[np.float64]:
        """How much of each place of the output belongs to each column, shape ``(deep + wide, d)``: a cross belongs to both by halves."""
        at = [columns.names.index(name) for name in columns.sizes]
        widths = [1] * self.numbers + [t.embedding_dim for t in self.vectors] + [self.scores] * len(self.wide_tables)
        holders: list[tuple[int, ...]] = [(i,) for i in (*columns.owners(), *at)]
        holders += [*((i,) for i in at), *((at[a], at[b]) for a, b in self.pairs)] if self.scores else []
        owned = np.zeros((self.width, len(columns.names)))
        for end, width, holder in zip(accumulate(widths), widths, holders, strict=True):
            for column in holder:
                owned[end - width : end, column] += 1 / len(holder)
        return owned


def _table(size: int, width: int, spread: float = 0.05) -> Any:
    table = nn.Embedding(size, width)
    nn.init.normal_(table.weight, std=spread) if spread else nn.init.zeros_(table.weight)
    with torch.no_grad():
        table.weight[0] = 0.0
    return table
