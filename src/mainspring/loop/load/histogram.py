"""Latencies in bounded memory: a histogram whose buckets are a constant share of their value wide."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_SUB_BITS = 11
_HALF = 1 << (_SUB_BITS - 1)
_MOST_BITS = 41
_CELLS = (_MOST_BITS - _SUB_BITS + 2) * _HALF

Nanoseconds = npt.NDArray[np.int64]


class Histogram:
    """Counts of durations in nanoseconds, up to 36 minutes, each to three significant digits.

    Source: Tene, HdrHistogram: buckets double in width from one power of two to the next, with 1,024 equal ones in each. What is
    longer counts as the longest.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_CELLS, dtype=np.int64)
        self.longest = 0

    @property
    def count(self) -> int:
        """How many durations there are."""
        return int(self._counts.sum())

    def add(self, durations: Nanoseconds) -> None:
        """Count durations, shape ``(n,)``; negative ones count as 0."""
        if len(durations):
            values = np.clip(durations, 0, (1 << _MOST_BITS) - 1)
            self.longest = max(self.longest, int(values.max()))
            self._counts += np.bincount(_cells(values), minlength=_CELLS)

    def quantiles(self, at: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The least duration, in seconds, that a share ``at`` of all does not exceed: the upper end of its bucket; NaN without any."""
        wanted, total = np.asarray(at, dtype=np.float64), self.count
        if not total:
            return np.full(wanted.shape, np.nan)
        ranks = np.maximum(1, np.ceil(wanted * total - 1e-9))
        cells = np.searchsorted(np.cumsum(self._counts), ranks)
        return np.minimum(_upper(cells), self.longest) / 1e9


def _cells(values: Nanoseconds) -> Nanoseconds:
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(bits - _SUB_BITS, 0)
    return np.asarray(shift * _HALF + (values >> shift), dtype=np.int64)


def _upper(cells: Nanoseconds) -> Nanoseconds:
    shift = np.maximum(cells // _HALF - 1, 0)
    return np.asarray(((cells - shift * _HALF + 1) << shift) - 1, dtype=np.int64)
