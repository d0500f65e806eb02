"""Aggregations in bounded memory, within a stated error: how many different values, and quantiles."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from mainspring.feature_engineering.states import Facts

_encode = msgspec.msgpack.Encoder().encode
_LOG_GROWTH = math.log(1.01 / 0.99)
_LEAST = 1e-9
_SHIFT = 2_000


class HyperLogLog:
    """Hashes of the values while they are few, then registers of leading zeros.

    Ertl's estimator needs no table of corrections and is unbiased from nothing to all 64 bits, which HLL++ corrects for by
    tables measured once. Source: Flajolet et al. 2007; Ertl, "New cardinality estimation algorithms", 2017.
    """

    BITS = 12
    FEW = 1_024

    def fold(self, facts: Facts) -> list[int] | dict[int, int]:
        """A list of 64-bit hashes, or register to its greatest rank."""
        return self._fitting(set(map(_hash, set(facts.values.tolist()))))

    def merge(self, one: Any, other: Any) -> list[int] | dict[int, int]:
        """All hashes of both, or the greater of each register."""
        if isinstance(one, list) and isinstance(other, list):
            return self._fitting({*one, *other})
        left, right = (self._registers(state) if isinstance(state, list) else state for state in (one, other))
        return {place: max(left.get(place, 0), right.get(place, 0)) for place in {*left, *right}}

    def result(self, state: Any, as_of: int) -> int:
        """The number of hashes, or the estimate, rounded."""
        if state is None or isinstance(state, list):
            return len(state or ())
        size, longest = 1 << self.BITS, 64 - self.BITS
        counts = Counter(state.values())
        z = size * _tau(1 - counts[longest + 1] / size)
        for rank in range(longest, 0, -1):
            z = 0.5 * (z + counts[rank])
        z += size * _sigma(1 - len(state) / size)
        return round(size * size / (2 * math.log(2) * z))

    def _fitting(self, hashes: set[int]) -> list[int] | dict[int, int]:
        return sorted(hashes) if len(hashes) <= self.FEW else self._registers(hashes)

    def _registers(self, hashes: Iterable[int]) -> dict[int, int]:
        registers: dict[int, int] = {}
        rest_bits = 64 - self.BITS
        for one in hashes:
            place, rest = one >> rest_bits, one & ((1 << rest_bits) - 1)
            registers[place] = max(registers.get(place, 0), rest_bits - rest.bit_length() + 1)
        return registers


@dataclass(frozen=True, slots=True)
class Percentile:
    """Counts in buckets whose bounds grow by 2 %: any quantile within 1 %, whatever is merged in which order.

    Source: Masson, Rim, Lee, "DDSketch", 2019.
    """

    q: float

    def fold(self, facts: Facts) -> dict[int, int]:
        """Bucket to count. 0 holds zero, positive numbers the positive values' buckets, negative ones the negative values'."""
        values = facts.values.astype(np.float64)
        buckets = np.zeros(len(values), dtype=np.int64)
        some = np.abs(values) > _LEAST
        buckets[some] = (np.ceil(np.log(np.abs(values[some])) / _LOG_GROWTH) + _SHIFT) * np.sign(values[some])
        return dict(zip(*(part.tolist() for part in np.unique(buckets, return_counts=True)), strict=True))

    def merge(self, one: Any, other: Any) -> dict[int, int]:
        """Added up."""
        return dict(Counter(one) + Counter(other))

    def result(self, state: Any, as_of: int) -> float | None:
        """The value at rank ``q * (n - 1)``, rounded down."""
        if state is None:
            return None
        rank = math.floor(self.q * (sum(state.values()) - 1))
        for bucket in sorted(state):
            rank -= state[bucket]
            if rank < 0:
                break
        if bucket == 0:
            return 0.0
        return math.copysign(2 * math.exp((abs(bucket) - _SHIFT) * _LOG_GROWTH) / (1 + math.exp(_LOG_GROWTH)), bucket)


def _hash(value: Any) -> int:
    one_zero = value + 0.0 if isinstance(value, float) else value
    return int.from_bytes(hashlib.blake2b(_encode(one_zero), digest_size=8).digest(), "big")


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    power, z, scale = x, x, 1.0
    while True:
        power *= power
        previous = z
        z += power * scale
        scale += scale
        if z == previous:
            return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    scale, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        previous = z
        scale *= 0.5
        z -= (1 - x) ** 2 * scale
        if z == previous:
            return z / 3
