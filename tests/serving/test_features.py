"""Feature rows: what becomes of functions when the store does not give what they read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from delivery import NOW, build
from delivery import system as delivery
from mainspring.clock import HOUR
from mainspring.columns import to_values
from mainspring.feature_store.online import OnlineStore
from mainspring.gateway.backend import opened
from mainspring.ingestion import Contract
from mainspring.schema import Status
from mainspring.serving.features import FeatureReader, FeatureRow
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


def test_columns_hold_what_the_rows_hold(tmp_path: Path) -> None:
    with opened(build(tmp_path / "space"), stream=True) as backend:
        reader = FeatureReader(backend.system, backend._service._features._online)  # type: ignore[attr-defined]
        depots = ["north", "south", "west", "moon"]
        rows = [
            {"drive": f"d{n}", "sent_at": NOW + HOUR, "depot": depots[n % 4], "km": None if n % 5 == 0 else float(n)} for n in range(30)
        ]
        read = reader.read_many(rows)
        assert read.columns is not None
        known = [place for place, one in enumerate(read.rows) if isinstance(one, FeatureRow)]
        assert [place for place in range(30) if place not in known] == list(range(3, 30, 4)), "the moon is no depot"
        for part in (read, read.take(known), read.take(known[::2])):
            assert part.columns is not None
            for place, name in enumerate(feature.name for feature in backend.system.features):
                values = to_values(part.columns[name])
                assert [values[n] for n, one in enumerate(part.rows) if isinstance(one, FeatureRow)] == [
                    one.values[place] for one in part.rows if isinstance(one, FeatureRow)
                ]
        for row, one in zip(rows, read.rows, strict=True):
            alone = reader.read_many([row]).rows[0]
            assert alone == one or str(alone) == str(one)


def test_rows_without_an_answer_of_the_store_have_no_columns(tmp_path: Path) -> None:
    late = dataclasses.replace(delivery, policy=dataclasses.replace(delivery.policy, feature_deadline="1us"))
    store = LmdbKeyValue(tmp_path)
    reader = FeatureReader(late, OnlineStore(late, store))
    row = {"drive": "d", "sent_at": NOW, "depot": "north", "km": 3.0}
    read, alone = reader.read_many([row] * 8), reader.read(row)
    store.close()
    assert read.columns is None
    assert read.rows == [alone] * 8
    assert alone.statuses.count(Status.UNAVAILABLE) == 3
