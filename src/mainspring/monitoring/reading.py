"""What a monitor says about one window, and the level above which it says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mainspring.storage.prediction_rows import ASKED

if TYPE_CHECKING:
    import pyarrow as pa

CALIBRATED = 14
BASELINE = 28
IN_A_ROW = 2
LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Reading:
    """One monitor's finding for the window ``[start, end)``.

    ``value`` is compared with ``threshold`` (None: there is nothing yet to compare with); ``alarm`` also takes the windows
    before into account. ``calibrated`` is whether the threshold was learned from enough of the system's own windows.
    """

    monitor: str
    name: str
    start: int
    end: int
    value: float
    threshold: float | None
    alarm: bool
    calibrated: bool
    rows: int
    note: str = ""


def own(predictions: pa.Table) -> pa.Table:
    """The answers that the system gave of itself: without those of a version that a client had asked for by number."""
    import pyarrow.compute as pc

    return predictions.filter(pc.not_equal(predictions.column("variant"), ASKED))


def learned_level(values: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]], noise: float = 0.0) -> float:
    """``exp(mean + 3 sd)`` of the log of positive values: what windows like these exceed about once in 700.

    ``noise`` is the relative standard error of the value to be compared; it widens the spread.
    """
    logs = np.log(np.maximum(values, LEAST))
    return float(np.exp(logs.mean() + 3 * np.hypot(logs.std(ddof=1), noise)))
