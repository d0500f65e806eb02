"""What the loop sees: predictions and labels as they come, read from the records alone."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.clock import DAY
from mainspring.monitoring.drift import DriftMonitor
from mainspring.monitoring.errors import ErrorMonitor
from mainspring.monitoring.labels import match
from mainspring.monitoring.reading import Reading, own
from mainspring.monitoring.windows import feature_arrays
from mainspring.schema import ENVELOPE, KNOWN_TIME
from mainspring.spec import System
from mainspring.storage.log import Log
from mainspring.storage.prediction_log import PredictionLog


class Observer:
    """Predictions of one System with their labels, kept up to date from the prediction log and the event log."""

    def __init__(self, system: System, predictions: PredictionLog, log: Log, since: int) -> None:
        """``since`` is an instant: labels known before it are left out."""
        self._system = system
        self._predictions = predictions
        self._log = log
        self._since = since
        self._offset = 0
        self._cursor: dict[str, int] = {}
        self._made: list[pa.Table] = []
        self._facts: list[pa.Table] = []

    def refresh(self) -> None:
        """Read what has been written since the last time."""
        table, self._cursor = self._predictions.read(self._cursor)
        table = own(table)
        if len(table):
            self._made.append(table)
        label = self._system.label
        for frame in self._log.read(self._offset):
            self._offset = frame.end
            if frame.source == label.source.name:
                facts = pa.Table.from_batches([frame.batch]).select(list(dict.fromkeys((label.on, label.column, *ENVELOPE))))
                self._facts.append(facts.filter(pc.greater_equal(facts.column(KNOWN_TIME), self._since)))

    def predictions(self, start: int, end: int) -> pa.Table:
        """Predictions with ``start <= as_of < end``."""
        if not self._made:
            return pa.table({"as_of": pa.array([], pa.int64())})
        return pa.concat_tables([_between(table, "as_of", start, end) for table in self._made], promote_options="default")

    def labelled(self, start: int, end: int, now: int) -> pa.Table:
        """Those predictions whose label was known by ``now``, with columns ``label`` and ``label_known_at``."""
        made = self.predictions(start, end)
        if not len(made) or not self._facts:
            return made.slice(0, 0).append_column("label", pa.array([], pa.float64()))
        label = self._system.label
        facts = pa.concat_tables([_between(facts, KNOWN_TIME, start, now + 1) for facts in self._facts])
        return match(made, facts, on=label.on, column=label.column, now=now)


def _between(table: pa.Table, column: str, start: int, end: int) -> pa.Table:
    """Rows with ``start <= column < end``; a table that lies outside altogether is not looked through."""
    extent = pc.min_max(table.column(column)).as_py()
    if not len(table) or extent["max"] < start or extent["min"] >= end:
        return table.slice(0, 0)
    if start <= extent["min"] and extent["max"] < end:
        return table
    values = table.column(column)
    return table.filter(pc.and_(pc.greater_equal(values, start), pc.less(values, end)))


class Watch:
    """The System's monitors, fed window by window; all their state follows from the windows they have seen."""

    def __init__(self, system: System, expected_error: float) -> None:
        self._system = system
        self._errors = ErrorMonitor(system.label.column, expected_error)
        features = next((monitor.features for monitor in system.monitors if monitor.watch == "drift"), ())
        chosen = features or [feature.name for feature in system.inputs]
        self._watched = frozenset(chosen)
        self._drift = DriftMonitor()

    def observe(self, observer: Observer, now: int) -> list[Reading]:
        """The readings of the day before ``now`` (drift) and of the day whose labels have matured (error)."""
        readings: list[Reading] = []
        watched = {monitor.watch for monitor in self._system.monitors}
        made = observer.predictions(now - DAY, now)
        if "drift" in watched and len(made):
            columns = {name: values for name, values in feature_arrays(made).items() if name in self._watched}
            readings += self._drift.observe(now - DAY, now, columns)
        end = now - self._system.label.matures_after_us
        labelled = observer.labelled(end - DAY, end, now)
        if "error" in watched and len(labelled):
            errors = labelled.column("score").to_numpy() - labelled.column("label").to_numpy()
            readings.append(self._errors.observe(end - DAY, end, errors))
        return readings
