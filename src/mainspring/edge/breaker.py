"""When a server that failed is asked again."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_SECONDS, LONGEST_SECONDS = 0.5, 60.0


class Breaker:
    """After the n-th failure in a row nothing is asked for ``0.5 * 2 ** (n - 1)`` seconds, 60 at most, times a number in [0.5, 1.5).

    The number keeps many devices from coming back at one moment. Source: Nygard, "Release It!", 2007; jitter after Brooker,
    "Exponential backoff and jitter", 2015.
    """

    def __init__(self, monotonic: Callable[[], float], rng: random.Random) -> None:
        self._monotonic, self._rng = monotonic, rng
        self._failures, self._until = 0, float("-inf")

    def ready(self) -> bool:
        """Whether the server may be asked now."""
        return self._monotonic() >= self._until

    def failed(self) -> None:
        """It did not answer."""
        self._failures += 1
        wait = min(FIRST_SECONDS * 2.0 ** min(self._failures - 1, 30), LONGEST_SECONDS)
        self._until = self._monotonic() + wait * (0.5 + self._rng.random())

    def succeeded(self) -> None:
        """It answered."""
        self._failures, self._until = 0, float("-inf")
