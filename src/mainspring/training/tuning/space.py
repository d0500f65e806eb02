"""What a search may choose from: typed ranges, drawn at random, laid out as a grid, or mapped to the unit cube."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import DeclarationError

Floats = npt.NDArray[np.float64]
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Real:
    """A number from ``low`` to ``high``, evenly on a logarithmic scale with ``log``."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check(self)

    @property
    def width(self) -> int:
        """Its dimensions in the unit cube."""
        return 1

    def value(self, unit: Sequence[float]) -> float:
        """The value at a place in the unit cube."""
        low, high = _scaled(self)
        value = low + unit[0] * (high - low)
        return min(max(math.exp(value) if self.log else value, self.low), self.high)

    def unit(self, value: float) -> list[float]:
        """The place of a value in the unit cube."""
        low, high = _scaled(self)
        return [((math.log(value) if self.log else value) - low) / (high - low)]

    def points(self, count: int) -> list[Any]:
        """At most ``count`` values evenly spread, both ends among them; a single one is the middle."""
        return [self.value([one]) for one in ([0.5] if count == 1 else np.linspace(0, 1, count))]


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number from ``low`` to ``high``, both included, evenly on a logarithmic scale with ``log``."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check(self)

    @property
    def width(self) -> int:
        """Its dimensions in the unit cube."""
        return 1

    def value(self, unit: Sequence[float]) -> int:
        """The value at a place in the unit cube: each whole number has a cell of its own."""
        return min(max(round(Real(self.low - 0.5, self.high + 0.5, self.log).value(unit)), self.low), self.high)

    def unit(self, value: int) -> list[float]:
        """The place of a value in the unit cube."""
        return Real(self.low - 0.5, self.high + 0.5, self.log).unit(value)

    def points(self, count: int) -> list[Any]:
        """At most ``count`` values evenly spread, both ends among them; a single one is the middle."""
        return list(dict.fromkeys(round(one) for one in Real(self.low, self.high, self.log).points(count)))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some texts, numbers, truth values or None."""

    values: Sequence[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise DeclarationError("Choice: there is nothing to choose from. Give at least one value.")

    @property
    def width(self) -> int:
        """Its dimensions in the unit cube: one a value."""
        return len(self.values)

    def value(self, unit: Sequence[float]) -> Any:
        """The value with the largest coordinate."""
        return self.values[int(np.argmax(unit))]

    def unit(self, value: Any) -> list[float]:
        """One for the value, zero for the others."""
        return [float(one == value) for one in self.values]

    def points(self, count: int) -> list[Any]:  # noqa: ARG002
        """All values, however many are asked for."""
        return list(self.values)


Range = Int | Real | Choice
Space = Mapping[str, Range]


def draw(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Settings at random, each independent of the others."""
    return decode(space, rng.random(width(space)))


def grid(space: Space, most: int) -> list[dict[str, Any]]:
    """At most ``most`` settings: every combination of as many points a range as that allows, more for those named first.

    Raises:
        DeclarationError: the choices alone have more combinations.
    """
    counts = dict.fromkeys(space, 1)
    if _size(space, counts) > most:
        raise DeclarationError(f"Search: its choices have {_size(space, counts)} combinations, a grid of {most} trials cannot hold them.")
    grew = True
    while grew:
        grew = False
        for name in space:
            more = {**counts, name: counts[name] + 1}
            if len(space[name].points(more[name])) > len(space[name].points(counts[name])) and _size(space, more) <= most:
                counts, grew = more, True
    axes = [one.points(counts[name]) for name, one in space.items()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]


def width(space: Space) -> int:
    """The dimensions of the unit cube."""
    return sum(one.width for one in space.values())


def encode(space: Space, settings: Settings) -> Floats:
    """The place of settings in the unit cube, of shape ``(width,)``."""
    return np.array([part for name, one in space.items() for part in one.unit(settings[name])])


def decode(space: Space, place: Floats) -> dict[str, Any]:
    """The settings at a place in the unit cube."""
    found, start = {}, 0
    for name, one in space.items():
        found[name] = one.value(place[start : start + one.width].tolist())
        start += one.width
    return found


def _size(space: Space, counts: Mapping[str, int]) -> int:
    return math.prod(len(one.points(counts[name])) for name, one in space.items())


def _scaled(one: Real) -> tuple[float, float]:
    return (math.log(one.low), math.log(one.high)) if one.log else (one.low, one.high)


def _check(one: Int | Real) -> None:
    name = f"{type(one).__name__}({one.low}, {one.high})"
    if not one.low < one.high:
        raise DeclarationError(f"{name}: the low end must be below the high end.")
    if one.log and one.low <= 0:
        raise DeclarationError(f"{name}: a logarithmic scale begins above 0.")
