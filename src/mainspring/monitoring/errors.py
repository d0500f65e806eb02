"""The level of the error: per window, per group, and when it has risen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mainspring.errors import DataError, did_you_mean
from mainspring.metrics import Moments
from mainspring.monitoring.reading import BASELINE, CALIBRATED, IN_A_ROW, LEAST, Reading, learned_level

if TYPE_CHECKING:
    import pyarrow as pa

CAUTIOUS_RISE = 1.3
LEAST_RISE = 1.1
MIN_ROWS = 30
_SLOW_DRIFT = 0.75
_SLOW_LIMIT = 12.0


class ErrorMonitor:
    """Alarms when the mean absolute error (MAE) of a window is above its threshold twice in a row, or creeps up for long.

    The baseline is the model's first 28 windows; from 14 on the threshold is exp(mean + 3 sd) of their log MAE, the sampling
    error of the window at hand added to the spread, and at least 10 % above their level. Until then readings are not
    calibrated and the threshold is 30 % above ``expected``, the MAE of the model's evaluation, sampling error added.
    Beside it Page's cumulative sum (Biometrika 41, 1954) of the log MAE above the full baseline, in its standard deviations
    less 0.75 each, finds slow rises that stay below the threshold; having alarmed it begins anew. Windows above the threshold
    do not join the baseline; 14 in a row are the new level, and the baseline begins again with them. A window with fewer
    than 30 errors is not judged.
    """

    def __init__(self, name: str, expected: float) -> None:
        self._name = name
        self._expected = float(expected)
        self._baseline: list[float] = []
        self._high: list[float] = []
        self._excess = 0.0

    def observe(self, start: int, end: int, errors: NDArray[np.float64]) -> Reading:
        """Judge the next window from its errors (``score - label``; NaN is left out).

        Give it windows by time, each once, when all its labels have come: those that come early are not like the rest.
        """
        moments = Moments.of(np.abs(errors[~np.isnan(errors)]))
        calibrated = len(self._baseline) >= CALIBRATED
        if moments.n < MIN_ROWS:
            value = moments.mean if moments.n else math.nan
            return Reading("error", self._name, start, end, value, None, False, calibrated, moments.n, f"fewer than {MIN_ROWS} labels")
        threshold = self._threshold(moments)
        note = self._learn(max(moments.mean, LEAST), threshold) or ("" if calibrated else "uncalibrated")
        alarm = len(self._high) >= IN_A_ROW or self._slow
        self._renew()
        return Reading("error", self._name, start, end, moments.mean, threshold, alarm, calibrated, moments.n, note)

    def _threshold(self, moments: Moments) -> float:
        noise = math.sqrt(moments.variance / moments.n) / moments.mean if moments.mean else 0.0
        if len(self._baseline) < CALIBRATED:
            return self._expected * CAUTIOUS_RISE * math.exp(3 * noise)
        return max(learned_level(self._baseline, noise), LEAST_RISE * math.exp(float(np.log(self._baseline).mean())))

    def _learn(self, value: float, threshold: float) -> str:
        """Take the window in; what is to be said about it."""
        full = len(self._baseline) == BASELINE
        if full:
            logs = np.log(self._baseline)
            apart = (math.log(value) - logs.mean()) / max(logs.std(ddof=1), math.log(LEAST_RISE) / 3)
            self._excess = max(0.0, self._excess + float(np.clip(apart, -3, 3)) - _SLOW_DRIFT)
        if value > threshold:
            self._high.append(value)
            return f"{len(self._high)} in a row above the threshold" + (", taken as the new level" if self._settled else "")
        self._high.clear()
        if not full:
            self._baseline.append(value)
        return "slow rise" if self._slow else ""

    def _renew(self) -> None:
        if self._slow or self._settled:
            self._excess = 0.0
        if self._settled:
            self._baseline, self._high = self._high, []

    @property
    def _settled(self) -> bool:
        return len(self._high) == CALIBRATED

    @property
    def _slow(self) -> bool:
        return self._excess > _SLOW_LIMIT


def group_errors(matched: pa.Table, by: Sequence[str]) -> pa.Table:
    """``rows``, ``mae`` and ``bias`` (mean of ``score - label``) per group, largest group first.

    ``matched`` comes from `match`; ``by`` names request columns or features. Rows without score are left out.

    Raises:
        DataError: there is no such column.
    """
    import pyarrow as pa

    groups = {name: matched[_column(matched, name)] for name in by}
    return _measured(pa.table({**groups, "score": matched["score"], "label": matched["label"]}), by).sort_by(
        [("rows", "descending"), *((name, "ascending") for name in by)]
    )


def window_errors(matched: pa.Table, width: int) -> pa.Table:
    """``start``, ``rows``, ``mae`` and ``bias`` per window of ``width`` microseconds of ``as_of`` on the UTC grid, by time."""
    import pyarrow as pa

    start = pa.array(matched["as_of"].to_numpy() // width * width)
    return _measured(pa.table({"start": start, "score": matched["score"], "label": matched["label"]}), ["start"]).sort_by("start")


def _measured(table: pa.Table, by: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    error = pc.subtract(table["score"].cast(pa.float64()), table["label"].cast(pa.float64()))
    table = table.select(list(by)).append_column("error", error).append_column("size", pc.abs(error))
    table = table.filter(pc.is_finite(table["error"]))
    found = table.group_by(list(by)).aggregate([("error", "count"), ("size", "mean"), ("error", "mean")])
    return found.rename_columns([*by, "rows", "mae", "bias"])


def _column(matched: pa.Table, name: str) -> str:
    for column in (f"request.{name}", f"feature.{name}"):
        if column in matched.column_names:
            return column
    known = [column.split(".", 1)[1] for column in matched.column_names if column.startswith(("request.", "feature."))]
    raise DataError(f"Errors by group: there is no '{name}' among the request columns and features.{did_you_mean(name, known)}")
