"""Aggregations as mergeable states: fold, merge, result. The same definition answers windows, lifetimes and buckets.

A state is plain data that MessagePack holds, and None is the identity of every merge. No merge depends on the order of its
arguments, so facts may arrive in any order; `Streak` alone does, and is given only facts that it has all at hand. Lifetimes are
merged from parts that engines cut differently: their sums of floats are exact until they are rounded once, at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from mainspring.clock import SECOND, parse_duration
from mainspring.feature_engineering.sketches import HyperLogLog, Percentile
from mainspring.feature_engineering.states import Aggregation, Facts, Rank
from mainspring.feature_engineering.sums import expansion, squares, terms, total
from mainspring.schema import Type
from mainspring.spec import Aggregate

INT_LIMIT = 2**63
TALLIES = ("sum", "mean", "min", "max")


def aggregation(aggregate: Aggregate) -> Aggregation:
    """The aggregation that a declared aggregate names."""
    inner = _alone(aggregate)
    return inner if aggregate.by is None else By(inner)


def _alone(aggregate: Aggregate) -> Aggregation:
    function, argument = aggregate.function, aggregate.argument
    if function in TALLIES:
        whole = aggregate.view.source.columns[aggregate.column or ""].type != Type.FLOAT
        return Tally(function, whole, exact=aggregate.window is None and not whole)
    if function in ("first", "last", "first_k", "last_k"):
        return Extreme(function.startswith("last"), argument or 1, argument is None)
    makers: Mapping[str, Callable[[], Aggregation]] = {
        "count": lambda: Count(None),
        "rate": lambda: Count(parse_duration(aggregate.window or "1s")),
        "time_since_last": Since,
        "variance": lambda: ExactMoments(1.0) if aggregate.window is None else Moments(1.0),
        "stddev": lambda: ExactMoments(0.5) if aggregate.window is None else Moments(0.5),
        "distinct": lambda: Values(None),
        "top_k": lambda: Values(argument),
        "approx_distinct": HyperLogLog,
        "approx_percentile": lambda: Percentile(argument),
        "histogram": lambda: Histogram(argument),
        "ewma": lambda: Ewma(parse_duration(argument)),
        "streak": Streak,
    }
    return makers[function]()


def merged(aggregation: Aggregation, one: Any, other: Any) -> Any:
    """The state of both, either of which may be None."""
    return other if one is None else one if other is None else aggregation.merge(one, other)


@dataclass(frozen=True, slots=True)
class Count:
    """How many; with ``window_us`` how many a second."""

    window_us: int | None

    def fold(self, facts: Facts) -> int:
        """The number of facts."""
        return len(facts.times)

    def merge(self, one: int, other: int) -> int:
        """Their sum."""
        return one + other

    def result(self, state: int | None, as_of: int) -> float:
        """An int, or a float where it is a rate."""
        return (state or 0) if self.window_us is None else (state or 0) * SECOND / self.window_us


@dataclass(frozen=True, slots=True)
class Tally:
    """How many values, their sum, the least and the greatest; an ``exact`` sum is one of floats, kept as an `expansion`."""

    function: str
    whole: bool
    exact: bool

    def fold(self, facts: Facts) -> tuple[int, Any, Any, Any]:
        """``(n, sum, min, max)``."""
        values = facts.values
        whole = expansion(values.tolist()) if self.exact else _storable(total(values))
        return len(values), whole, values.min().item(), values.max().item()

    def merge(self, one: Any, other: Any) -> tuple[int, Any, Any, Any]:
        """Element by element."""
        whole = expansion([*one[1], *other[1]]) if self.exact else _storable(one[1] + other[1])
        return one[0] + other[0], whole, min(one[2], other[2]), max(one[3], other[3])

    def result(self, state: Any, as_of: int) -> Any:
        """Sum, mean, minimum or maximum; a whole sum beyond 64 bits is null."""
        if state is None:
            return None
        n, whole, least, greatest = state
        whole = whole[0] if self.exact else whole
        if self.function == "mean":
            return whole / n
        value = {"sum": whole, "min": least, "max": greatest}[self.function]
        return None if self.whole and isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sum, and sum of squared distances from the mean. Source: Chan, Golub, LeVeque, 1979."""

    power: float

    def fold(self, facts: Facts) -> tuple[int, Any, float]:
        """``(n, sum, m2)``; whole numbers stay whole until they are distances."""
        n = len(facts.values)
        if facts.values.dtype == np.float64:
            whole = math.fsum(facts.values)
            return n, whole, math.fsum((facts.values - whole / n) ** 2)
        values = facts.values.tolist()
        whole = sum(values)
        return n, _storable(whole), math.fsum(((value * n - whole) / n) ** 2 for value in values)

    def merge(self, one: Any, other: Any) -> tuple[int, Any, float]:
        """Both together."""
        n = one[0] + other[0]
        distance = (other[1] * one[0] - one[1] * other[0]) / (one[0] * other[0])
        return n, _storable(one[1] + other[1]), one[2] + other[2] + distance**2 * one[0] * other[0] / n

    def result(self, state: Any, as_of: int) -> float | None:
        """The sample variance to the power of ``power``; None below two values."""
        return None if state is None or state[0] < 2 else float((state[2] / (state[0] - 1)) ** self.power)


@dataclass(frozen=True, slots=True)
class ExactMoments:
    """Count, sum and sum of squares, the latter two as `expansion`."""

    power: float

    def fold(self, facts: Facts) -> tuple[int, list[float], list[float]]:
        """``(n, sum, squares)``."""
        if facts.values.dtype == np.float64:
            return len(facts.values), expansion(facts.values.tolist()), expansion(squares(facts.values))
        values = facts.values.tolist()
        return len(values), terms(sum(values)), terms(sum(value * value for value in values))

    def merge(self, one: Any, other: Any) -> tuple[int, list[float], list[float]]:
        """Both together."""
        return one[0] + other[0], expansion([*one[1], *other[1]]), expansion([*one[2], *other[2]])

    def result(self, state: Any, as_of: int) -> float | None:
        """The sample variance to the power of ``power``; None below two values, and where a value is too large to square."""
        if state is None or state[0] < 2 or not all(map(math.isfinite, [*state[1], *state[2]])):
            return None
        n, whole, squared = state[0], *(sum(map(Fraction, part)) for part in state[1:])
        return math.pow((squared - whole * whole / n) / (n - 1), self.power)


@dataclass(frozen=True, slots=True)
class Extreme:
    """The oldest or the newest ``k`` values."""

    newest: bool
    k: int
    alone: bool

    def fold(self, facts: Facts) -> list[tuple[Rank, Any]]:
        """Ranks and values, oldest first."""
        rows = range(len(facts.times))[-self.k :] if self.newest else range(len(facts.times))[: self.k]
        ranks = facts.ranks()
        return [(ranks[row], _plain(facts.values[row])) for row in rows]

    def merge(self, one: Any, other: Any) -> list[tuple[Rank, Any]]:
        """The first or last ``k`` of both."""
        both = sorted(((tuple(rank), value) for rank, value in [*one, *other]), key=lambda pair: pair[0])
        return both[-self.k :] if self.newest else both[: self.k]

    def result(self, state: Any, as_of: int) -> Any:
        """A list, newest first where it is the newest; or the one value."""
        if state is None:
            return None
        values = [value for _, value in (reversed(state) if self.newest else state)]
        return values[0] if self.alone else values


@dataclass(frozen=True, slots=True)
class Values:
    """How often each value occurs: exact numbers of different values, and the most frequent."""

    k: int | None

    def fold(self, facts: Facts) -> dict[Any, int]:
        """Counts per value."""
        return dict(Counter(facts.values.tolist()))

    def merge(self, one: Any, other: Any) -> dict[Any, int]:
        """Added up."""
        return dict(Counter(one) + Counter(other))

    def result(self, state: Any, as_of: int) -> Any:
        """How many there are, or the ``k`` most frequent."""
        if self.k is None:
            return len(state or ())
        return None if state is None else sorted(state, key=lambda value: (-state[value], value))[: self.k]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between fixed edges, the lower edge of each bin included."""

    edges: tuple[float, ...]

    def fold(self, facts: Facts) -> list[int]:
        """``len(edges) + 1`` counts."""
        found = np.searchsorted(self.edges, facts.values.astype(np.float64), "right")
        return [int(count) for count in np.bincount(found, minlength=len(self.edges) + 1)]

    def merge(self, one: Any, other: Any) -> list[int]:
        """Added up."""
        return [left + right for left, right in zip(one, other, strict=True)]

    def result(self, state: Any, as_of: int) -> list[int]:
        """The counts."""
        return [0] * (len(self.edges) + 1) if state is None else list(state)


@dataclass(frozen=True, slots=True)
class Ewma:
    """Sum of values and of weights, both as of the newest fact's instant."""

    half_life_us: int

    def fold(self, facts: Facts) -> tuple[int, float, float]:
        """``(instant, weighted sum, weight)``."""
        weights = np.exp2((facts.times - facts.times[-1]) / self.half_life_us)
        return int(facts.times[-1]), math.fsum(weights * facts.values.astype(np.float64)), math.fsum(weights)

    def merge(self, one: Any, other: Any) -> tuple[int, float, float]:
        """Both as of the later instant."""
        older, newer = sorted((one, other), key=lambda state: state[0])
        faded = 2.0 ** ((older[0] - newer[0]) / self.half_life_us)
        return newer[0], newer[1] + older[1] * faded, newer[2] + older[2] * faded

    def result(self, state: Any, as_of: int) -> float | None:
        """The weighted mean: it does not change while no fact comes."""
        return None if state is None else state[1] / state[2]


class Since:
    """The newest fact's instant."""

    def fold(self, facts: Facts) -> int:
        """That of the last fact."""
        return int(facts.times[-1])

    def merge(self, one: int, other: int) -> int:
        """The later."""
        return max(one, other)

    def result(self, state: int | None, as_of: int) -> float | None:
        """Seconds since then."""
        return None if state is None else (as_of - state) / SECOND


class Streak:
    """How many facts, and how many of the newest in a row are true; in a merge, ``one`` is the older."""

    def fold(self, facts: Facts) -> tuple[int, int]:
        """``(n, run)``."""
        broken = np.flatnonzero(~facts.values.astype(np.bool_))
        return len(facts.values), len(facts.values) - 1 - int(broken[-1]) if len(broken) else len(facts.values)

    def merge(self, one: Any, other: Any) -> tuple[int, int]:
        """The newer run, with the older one where nothing breaks it."""
        return one[0] + other[0], other[1] + (one[1] if other[1] == other[0] else 0)

    def result(self, state: Any, as_of: int) -> int:
        """The length of the run."""
        return 0 if state is None else int(state[1])


@dataclass(frozen=True, slots=True)
class By:
    """The states of another aggregation per value of a column; keys are text."""

    inner: Aggregation

    def fold(self, facts: Facts) -> dict[str, Any]:
        """A state per group."""
        groups = facts.groups.tolist() if facts.groups is not None else []
        return {_text(group): self.inner.fold(facts.only(facts.groups == group)) for group in dict.fromkeys(groups)}

    def merge(self, one: Any, other: Any) -> dict[str, Any]:
        """Group by group."""
        return {group: merged(self.inner, one.get(group), other.get(group)) for group in {**one, **other}}

    def result(self, state: Any, as_of: int) -> dict[str, Any] | None:
        """Answers per group; None where there is none."""
        return None if state is None else {group: self.inner.result(state[group], as_of) for group in sorted(state)}


def _text(group: Any) -> str:
    """A value of ``by=`` as a map's key, as JSON writes it."""
    return group if isinstance(group, str) else str(group).lower()


def _storable(whole: Any) -> Any:
    """A sum as MessagePack holds it: a float where a whole number has left 64 bits."""
    return float(whole) if isinstance(whole, int) and not -INT_LIMIT <= whole < INT_LIMIT else whole


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
