"""When what failed is asked again: a server, a store, a version of a model."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_SECONDS, LONGEST_SECONDS = 0.5, 60.0


class Breaker:
    """Opens after ``after`` failures in a row: nothing is asked for a while, then one probe at a time, until one succeeds.

    The while is ``0.5 * 2 ** n`` seconds after ``n`` probes that failed, 60 at most, times a number in [0.5, 1.5), which keeps many
    processes from coming back at one moment. Source: Nygard, "Release It!", 2007; jitter after Brooker, "Exponential backoff and
    jitter", 2015.

    Args:
        monotonic: seconds that only go forward.
        rng: draws the jitter.
        after: failures in a row that open it.
    """

    def __init__(self, monotonic: Callable[[], float], rng: random.Random, after: int = 1) -> None:
        self._monotonic, self._rng, self._after = monotonic, rng, after
        self._failures, self._until = 0, float("-inf")

    def now(self) -> float:
        """What its clock says."""
        return self._monotonic()

    @property
    def open(self) -> bool:
        """Whether it failed so often that at most probes are asked."""
        return self._failures >= self._after

    def ready(self) -> bool:
        """Whether it may be asked now, be it for a probe."""
        return self._failures < self._after or self._monotonic() >= self._until

    def failed(self) -> None:
        """It did not answer, or not in time."""
        self._failures += 1
        if self.open:
            wait = min(FIRST_SECONDS * 2.0 ** min(self._failures - self._after, 30), LONGEST_SECONDS)
            self._until = self._monotonic() + wait * (0.5 + self._rng.random())

    def succeeded(self) -> None:
        """It answered."""
        self._failures = 0
