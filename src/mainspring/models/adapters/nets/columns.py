"""What a net learns of its columns before it learns anything else: scales of numbers, sizes of category tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mainspring.errors import TrainingError

Floats = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]
Scaling = Literal["quantile", "standard"]

MOST_KNOTS = 256
FURTHEST = 10.0
MOST_CODES = 1 << 24
"""A net reads codes as float32, which tells no more whole numbers apart."""


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A column of numbers: from the learned ``knots`` (rising values) to the learned ``levels`` (scaled values), linear between.

    ``standard`` has two knots, a standard deviation apart, and goes on beyond them up to 10 deviations; ``quantile`` gives
    the training values a normal distribution and ends where they end. Missing becomes 0, told apart by an indicator (``gaps``) if it
    occurred in training.
    """

    knots: tuple[float, ...]
    levels: tuple[float, ...]
    gaps: bool

    @classmethod
    def fit(cls, values: Floats, scaling: Scaling) -> NumberColumn:
        """Learn from training values of shape ``(n,)``; infinities count for nothing."""
        known = values[np.isfinite(values)]
        gaps = bool(np.isnan(values).any())
        if not len(known) or known.min() == known.max():
            middle = float(known[0]) if len(known) else 0.0
            return cls((middle, middle + 1.0), (0.0, 1.0), gaps)
        if scaling == "standard":
            mean, deviation = float(known.mean()), float(known.std())
            return cls((mean, mean + deviation), (0.0, 1.0), gaps)
        ranks = np.linspace(0.0, 1.0, min(MOST_KNOTS, len(known)))
        knots, first = np.unique(np.quantile(known, ranks), return_index=True)
        last = np.append(first[1:], len(ranks)) - 1
        middles = np.clip((ranks[first] + ranks[last]) / 2, 0.5 / len(ranks), 1 - 0.5 / len(ranks))
        return cls(tuple(knots.tolist()), tuple(map(NormalDist().inv_cdf, middles.tolist())), gaps)

    def apply(self, values: Floats) -> Floats:
        """Scaled values, 0 where missing."""
        if len(self.knots) == 2:
            (start, end), (low, high) = self.knots, self.levels
            scaled = low + np.clip((values - start) / (end - start), -FURTHEST, FURTHEST) * (high - low)
        else:
            scaled = np.interp(values, self.knots, self.levels)
        return np.where(np.isnan(values), 0.0, scaled)


@dataclass(frozen=True, slots=True)
class LearnedColumns:
    """The columns of an encoded matrix as nets take them: scaled numbers, indicators of missing numbers, category codes.

    A code that was not learned (missing, negative, fractional or beyond the largest in training) becomes 0; learned code ``c``
    becomes ``c + 1``. ``numbers`` and ``sizes`` hold what was learned per column; ``sizes`` counts the codes, 0 included.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, NumberColumn]
    sizes: Mapping[str, int]

    @classmethod
    def fit(cls, x: Floats, names: Sequence[str], categorical: Sequence[str], scaling: Scaling) -> LearnedColumns:
        """Learn from the training matrix of shape ``(n, d)``.

        Raises:
            TrainingError: there are no rows, names and matrix disagree, or a column has too many categories.
        """
        if not len(x) or x.shape[1] != len(names) or set(categorical) - set(names):
            raise TrainingError(
                f"A net got a matrix of shape {x.shape} for {len(names)} columns, {len(categorical)} of them categorical. "
                "Give at least one row, and a name for each column."
            )
        numbers = {name: NumberColumn.fit(x[:, i], scaling) for i, name in enumerate(names) if name not in set(categorical)}
        sizes = {name: int(np.nanmax(np.append(x[:, list(names).index(name)], -1.0))) + 2 for name in categorical}
        for name, size in sizes.items():
            if size > MOST_CODES:
                raise TrainingError(f"Column '{name}' has {size - 1} categories; a net tells {MOST_CODES - 1} apart. Hash them to fewer.")
        return cls(tuple(names), numbers, sizes)

    @property
    def indicated(self) -> tuple[str, ...]:
        """The number columns that have an indicator."""
        return tuple(name for name, column in self.numbers.items() if column.gaps)

    @property
    def width(self) -> int:
        """How many columns `apply` gives."""
        return len(self.numbers) + len(self.indicated) + len(self.sizes)

    def apply(self, x: Floats) -> Floats:
        """The matrix ``(n, numbers + indicators + categories)`` in that order; codes are whole numbers."""
        by_name = dict(zip(self.names, x.T, strict=True))
        numbers = [column.apply(by_name[name]) for name, column in self.numbers.items()]
        indicators = [np.isnan(by_name[name]).astype(np.float64) for name in self.indicated]
        codes = [_known_codes(by_name[name], size) for name, size in self.sizes.items()]
        return np.column_stack([*numbers, *indicators, *codes]) if len(self.names) else np.empty((len(x), 0))

    def owners(self) -> list[int]:
        """For each number and indicator of `apply`, the column of ``names`` that it belongs to."""
        return [self.names.index(name) for name in (*self.numbers, *self.indicated)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        numbers = {name: asdict(column) for name, column in self.numbers.items()}
        return {"names": list(self.names), "numbers": numbers, "sizes": dict(self.sizes)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> LearnedColumns:
        """The columns that `to_dict` wrote."""
        numbers = {
            name: NumberColumn(tuple(one["knots"]), tuple(one["levels"]), one["gaps"])
            for name in body["names"]
            if (one := body["numbers"].get(name)) is not None
        }
        sizes = {name: body["sizes"][name] for name in body["names"] if name in body["sizes"]}
        return cls(tuple(body["names"]), numbers, sizes)


def _known_codes(values: Floats, size: int) -> Floats:
    known = (values >= 0) & (values < size - 1) & (values == np.floor(values))
    return np.where(known, values + 1, 0.0)
