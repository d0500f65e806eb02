"""Trees as plain numbers, whichever library grew them: the one form that other forms of a model are written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.models.parity import Probes


@dataclass(frozen=True, slots=True)
class Split:
    """A row goes to ``low`` where its column is at most ``value`` (``less``: below it), or, if there are ``members``, one of them.

    A missing number goes to ``low`` if ``missing_low``. A branch is a split or a leaf's number.
    """

    column: int
    value: float
    low: Split | float
    high: Split | float
    missing_low: bool = False
    less: bool = False
    members: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees whose sums are the scores: tree ``i`` adds to output ``i % outputs``; ``dtype`` is that of all its numbers.

    ``link`` makes answers of scores: ``identity``, ``logistic`` (of ``steepness`` times the score) or ``softmax``.
    """

    trees: tuple[Split, ...]
    outputs: int
    dtype: type[np.floating[Any]]
    link: str = "identity"
    steepness: float = 1.0

    def probes(self) -> Probes:
        """Its thresholds and categories."""
        splits = [split for tree in self.trees for split in _splits(tree)]
        largest = np.finfo(np.float32).max
        edges = {(split.column, split.value) for split in splits if not split.members and abs(split.value) < largest}
        counts: dict[int, int] = {}
        for split in splits:
            if split.members:
                counts[split.column] = max(counts.get(split.column, 0), int(max(split.members)) + 1)
        return Probes(sorted(edges), counts, self.dtype)


def always(value: float) -> Split:
    """A tree of one leaf."""
    return Split(0, 0.0, value, value)


def _splits(branch: Split | float) -> Iterator[Split]:
    if isinstance(branch, Split):
        yield branch
        yield from _splits(branch.low)
        yield from _splits(branch.high)
