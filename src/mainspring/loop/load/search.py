"""The most that a service carries: the rate is raised until its promise breaks, then narrowed down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mainspring.errors import DataError
from mainspring.loop.load.recorder import Load

Measure = Callable[[float], Load]
WITHIN = 0.05
FAILED = 0.001
_STEPS = 24


@dataclass(frozen=True, slots=True)
class Found:
    """The highest rate that held (0 where none did), every measurement in order, and what ended the search."""

    rate: float
    loads: tuple[Load, ...]
    because: str


def find_max(measure: Measure, start: float, p99: float) -> Found:
    """Double the rate from ``start`` a second until the promise breaks, then halve the interval until it is 5 % wide.

    A rate holds when the 99th percentile is at most ``p99`` seconds and at most 0.1 % of requests fail. Where the generator could not
    keep its schedule the search ends: what it would find is its own limit.

    Raises:
        DataError: the rate or the promise is not positive.
    """
    if start <= 0 or p99 <= 0:
        raise DataError("find-max: the rate to start from and the promised p99 must be positive. Write for example --rate 100 --p99 20ms.")
    loads: list[Load] = []
    held, broken, rate, because = 0.0, float("inf"), start, "the promise broke"
    while len(loads) < _STEPS and broken - held > WITHIN * held:
        load = measure(rate)
        loads.append(load)
        if load.behind is not None:
            because = f"at {rate:.0f}/s {load.behind}"
            break
        if load.percentile(0.99) <= p99 and load.failed <= FAILED:
            held = rate
        else:
            broken = rate
        rate = 2 * held if broken == float("inf") else (held + broken) / 2
        if held == 0 and rate < start / 64:
            break
    return Found(held, tuple(loads), because)
