"""What an aggregation is: a state that folds facts, merges, and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mainspring.columns import Array

Rank = tuple[int, int, Any]
"""What decides between two facts: event time, known time, event id."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts in winning order: event times, values and ``by=`` groups of shape ``(n,)``, without nulls; ``ranks`` makes their ranks."""

    times: Array
    values: Array
    groups: Array | None
    ranks: Callable[[], list[Rank]]

    def only(self, chosen: Array) -> Facts:
        """Those where a mask of shape ``(n,)`` is true."""
        rows = np.flatnonzero(chosen).tolist()
        return Facts(self.times[rows], self.values[rows], None, lambda: [self.ranks()[row] for row in rows])


class Aggregation(Protocol):
    """One mergeable state. ``fold`` is only given facts, ``merge`` only states, never None."""

    def fold(self, facts: Facts) -> Any:
        """The state of some facts, at least one."""
        ...

    def merge(self, one: Any, other: Any) -> Any:
        """The state of the facts of both."""
        ...

    def result(self, state: Any, as_of: int) -> Any:
        """The answer at an instant; ``state`` is None where there were no facts."""
        ...
