"""The features of questions from the offline tables: as they were known at each question's own instant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mainspring.columns import to_array, to_values
from mainspring.errors import MainspringError
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.schema import KNOWN_TIME, Status, arrow_type
from mainspring.serving.features import FeatureRow, FeatureRows, Row, unknown
from mainspring.spec import System, View


class OfflineReader:
    """What `mainspring.serving.features.FeatureReader` is for the online store; a value's status is present or null."""

    def __init__(self, system: System, store: OfflineStore) -> None:
        self._system, self._store = system, store
        self._columns = system.request.columns
        self._required = [view for view in system.views if view.required]

    def read_many(self, rows: Sequence[Row]) -> FeatureRows:
        """The features of each row as of its event time, or the error where a required key was not known by then."""
        if not rows:
            return FeatureRows([])
        given = {field.name: [row[field.name] for row in rows] for field in self._columns.fields}
        arrays = {name: pa.array(values, arrow_type(self._columns[name].type)) for name, values in given.items()}
        as_of = np.array(given[self._system.request.event_time], dtype=np.int64)
        computed = self._store.features(pa.table({**arrays, AS_OF: as_of}))
        values = [given[name] if name in given else to_values(column) for name, column in computed.items()]
        answers: list[FeatureRow | MainspringError] = [FeatureRow(row, _statuses(row)) for row in zip(*values, strict=True)]
        for view in self._required:
            for number in self._unknown(view, given, as_of.tolist()):
                answers[number] = unknown(view, rows[number])
        return FeatureRows(answers)

    def _unknown(self, view: View, given: dict[str, list[object]], as_of: Sequence[int]) -> list[int]:
        """The rows whose key no fact was known of at their instants."""
        asked = {on: to_array(given[on], self._columns[on].type) for on in view.on}
        facts = self._store.facts(view, asked)
        first: dict[tuple[object, ...], int] = {}
        keys = zip(*[facts.column(name).to_pylist() for name in view.columns], strict=True)
        for key, known in zip(keys, facts.column(KNOWN_TIME).to_pylist(), strict=True):
            first[key] = min(known, first.get(key, known))
        asking = zip(*[given[on] for on in view.on], strict=True)
        return [number for number, (key, at) in enumerate(zip(asking, as_of, strict=True)) if first.get(key, at + 1) > at]


def _statuses(values: tuple[object, ...]) -> bytes:
    return bytes([Status.NULL if value is None else Status.PRESENT for value in values])
