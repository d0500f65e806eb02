"""Early stopping by the most that a learning curve can still reach.

A curve that rises more and more slowly stays below the line through its last two points. A trial whose line does not reach the best
value so far by its last step cannot become the best, so stopping it loses nothing; one that learns slowly but steadily goes on.

Source: the upper bound of Li, Jiang, Gao, Shao, Zhang, Cui, "Efficient automatic CASH via rising bandits", 2020, with the growth since
the last look.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

SPACING = 1.4
"""Between two looks the steps grow by this factor: close enough to see a curve bend, far enough to see over its noise."""


def looks(first: int, steps: int) -> tuple[int, ...]:
    """The steps at which trials are looked at: from ``first`` on, each further by `SPACING`, below ``steps``."""
    after = itertools.accumulate(itertools.repeat(SPACING, steps), lambda step, factor: max(step + 1, round(step * factor)), initial=first)
    return tuple(itertools.takewhile(lambda step: step < steps, after))


def reach(seen: Mapping[int, float], steps: int) -> float:
    """The largest value, by the line through the last two of ``seen`` (value by step), at ``steps``; infinite after a single look."""
    if len(seen) < 2:
        return float("inf")
    (before, low), (now, high) = sorted(seen.items())[-2:]
    return high + max(high - low, 0.0) / (now - before) * (steps - now)
