"""Change of a level: the Page-Hinkley test for a rise. Source: Page, "Continuous inspection schemes", Biometrika 41, 1954."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class PageHinkley:
    """The test after some values: it alarms when their mean has risen.

    ``delta`` is the rise above the mean so far that is tolerated, ``threshold`` the excess over it, added up, that alarms; both
    in the unit of the values.
    """

    delta: float
    threshold: float
    n: int = 0
    mean: float = 0.0
    total: float = 0.0
    lowest: float = 0.0

    def step(self, value: float) -> PageHinkley:
        """The test after one more value."""
        n = self.n + 1
        mean = self.mean + (value - self.mean) / n
        total = self.total + value - mean - self.delta
        return replace(self, n=n, mean=mean, total=total, lowest=min(self.lowest, total))

    @property
    def alarm(self) -> bool:
        """Whether the excess is above the threshold."""
        return self.total - self.lowest > self.threshold


def page_hinkley(values: Iterable[float], *, delta: float, threshold: float) -> int | None:
    """Index of the value at which the test first alarms, or None."""
    state = PageHinkley(delta, threshold)
    for index, value in enumerate(values):
        state = state.step(value)
        if state.alarm:
            return index
    return None
