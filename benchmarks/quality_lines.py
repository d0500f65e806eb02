"""A line of the quality table: what was measured on one set, how sure it is, and what stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import QUICK

from mainspring.metrics import bootstrap_interval

Floats = npt.NDArray[np.float64]
DRAWS, MANY_ROWS = 50 if QUICK else 200, 100_000


@dataclass(frozen=True)
class Measure:
    """One figure: ``value`` with its 95 % ``interval``, the published ``floor`` and what a ``plain`` model reached in the same run."""

    name: str
    unit: str
    value: float
    interval: tuple[float, float]
    plain: float
    floor: float | None = None
    higher: bool = True

    @property
    def holds(self) -> bool:
        """Whether it is on the right side of the floor."""
        return self.floor is None or (self.value >= self.floor if self.higher else self.value <= self.floor)


@dataclass(frozen=True)
class Line:
    """One set: what was run on it, the plain model beside it, and the figures."""

    name: str
    run: str
    plain: str
    measures: Sequence[Measure]


def measure(
    name: str,
    unit: str,
    statistic: Callable[..., float],
    said: tuple[Any, Any],
    shared: Sequence[npt.NDArray[Any]],
    *,
    floor: float | None = None,
    higher: bool = True,
    blocks: npt.NDArray[Any] | None = None,
) -> Measure:
    """``statistic`` of what the platform and the plain model ``said``; the interval draws rows, or ``blocks`` of them, with replacement.

    Of more than `MANY_ROWS` rows a quarter of the draws do.
    """
    ours, plain = said
    draws = DRAWS if len(ours) < MANY_ROWS else DRAWS // 4
    interval = bootstrap_interval(statistic, [ours, *shared], rng=np.random.default_rng(0), blocks=blocks, draws=draws)
    values = [float(statistic(one, *shared)) for one in (ours, plain)]
    return Measure(name, unit, values[0], interval, values[1], floor, higher)
