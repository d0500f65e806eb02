"""Feature rows: what becomes of functions when the store does not give what they read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mainspring.feature_store.online import OnlineStore
from mainspring.ingestion import Contract
from mainspring.schema import Status
from mainspring.serving.features import FeatureReader
from mainspring.storage.adapters.lmdb import LmdbKeyValue
from mainspring.systems.eta import system

TRIP = {"trip_id": "t", "departed_at": "2013-12-12T17:05:00-05:00", "timezone": "America/New_York", "origin": "JFK", "destination": "LAX"}


def test_functions_of_what_comes_too_late_are_as_unavailable_and_take_their_defaults(tmp_path: Path) -> None:
    late = dataclasses.replace(system, policy=dataclasses.replace(system.policy, feature_deadline="1us"))
    store = LmdbKeyValue(tmp_path)
    row = Contract(system.request).check(TRIP)
    read = FeatureReader(late, OnlineStore(late, store)).read(row)
    store.close()
    names = [feature.name for feature in system.features]
    statuses = dict(zip(names, map(Status, read.statuses), strict=True))
    values = dict(zip(names, read.values, strict=True))
    assert statuses["under_way"] == statuses["origin__count_1d"] == Status.UNAVAILABLE
    assert statuses["paced_minutes"] == Status.UNAVAILABLE  # reads typical_pace, which reads the store
    assert statuses["local_hour"] == Status.PRESENT
    functions = {feature.name: feature.default for feature in system.functions}
    assert {name: values[name] for name in functions if statuses[name] == Status.UNAVAILABLE} == {
        name: default for name, default in functions.items() if statuses[name] == Status.UNAVAILABLE
    }
