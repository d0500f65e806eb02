"""When requests are due: at a constant rate, at random, or as they were recorded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mainspring.errors import DataError
from mainspring.loop.load.histogram import Nanoseconds


def constant(rate: float, seconds: float) -> Nanoseconds:
    """Instants in nanoseconds from the start, ``rate`` a second, evenly spaced."""
    return (np.arange(max(1, round(rate * seconds))) * (1e9 / rate)).astype(np.int64)


def poisson(rate: float, seconds: float, seed: int) -> Nanoseconds:
    """Arrivals that know nothing of each other, on average ``rate`` a second: as many users behave."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1e9 / rate, max(1, round(rate * seconds)))
    return np.cumsum(gaps).astype(np.int64)


def recorded(instants: Sequence[int], speed: float) -> Nanoseconds:
    """The gaps of recorded instants (microseconds, in any order), ``speed`` times as fast.

    Raises:
        DataError: there are fewer than two, or all are one instant.
    """
    at = np.sort(np.asarray(instants, dtype=np.int64))
    if len(at) < 2 or at[0] == at[-1]:
        raise DataError("Recorded arrivals: fewer than two instants are there. Record more, or use --arrivals constant with --rate.")
    return np.asarray((at - at[0]) * (1_000 / speed), dtype=np.int64)
