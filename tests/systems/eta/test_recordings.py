"""The recordings of the ETA system: real data into one declaration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from mainspring.clock import format_instant
from mainspring.columns import to_array
from mainspring.errors import DataError
from mainspring.ingestion import Contract
from mainspring.ingestion.recording import Recording
from mainspring.schema import Type
from mainspring.systems.eta import flights, load, sources, taxi


@pytest.fixture(scope="module")
def recording() -> Recording:
    return flights.load()


def arrival(recording: Recording, trip: str) -> dict[str, object]:
    table = recording.tables["arrivals"]
    rows = table.filter(pc.equal(table.column("trip_id"), trip)).to_pylist()
    assert len(rows) == 1
    return dict(rows[0])


def test_every_flight_is_accounted_for(recording: Recording) -> None:
    assert recording.notes == {"flights": 336_776, "cancelled": 8_255, "never arrived as planned": 1_175}
    assert {name: len(table) for name, table in recording.tables.items()} == {
        "trips": 328_521, "arrivals": 327_346, "weather": 26_115, "places": 1_459,
    }  # fmt: skip
    for name in ("trips", "arrivals"):
        assert len(recording.tables[name].column("trip_id").unique()) == len(recording.tables[name])


def test_durations_are_possible(recording: Recording) -> None:
    extent = pc.min_max(recording.tables["arrivals"].column("minutes")).as_py()
    assert extent == {"min": 33.0, "max": 738.0}


@pytest.mark.parametrize(
    ("trip", "departed", "arrived", "planned"),
    [
        ("2013-01-01-HA51-JFK-900", "2013-01-01T13:57:00Z", "2013-01-02T01:16:00Z", 690.0),
        ("2013-01-01-B6709-JFK-615", "2013-01-01T11:15:00Z", "2013-01-01T14:39:00Z", 225.0),
        ("2013-01-01-AA1999-EWR-1720", "2013-01-02T03:05:00Z", "2013-01-02T05:46:00Z", 200.0),
        ("2013-03-09-B6707-JFK-2315", "2013-03-10T04:45:00Z", "2013-03-10T08:06:00Z", 222.0),
        ("2013-03-10-UA387-EWR-655", "2013-03-10T10:52:00Z", "2013-03-10T16:53:00Z", 380.0),
        ("2013-11-02-VX413-JFK-1655", "2013-11-03T02:17:00Z", "2013-11-03T08:14:00Z", 380.0),
    ],
    ids=["Honolulu", "San Juan", "past midnight", "into the night clocks go forward", "that morning", "the hour shown twice"],
)
def test_flights_checked_by_hand(recording: Recording, trip: str, departed: str, arrived: str, planned: float) -> None:
    row = arrival(recording, trip)
    assert (format_instant(int(str(row["departed_at"]))), format_instant(int(str(row["arrived_at"])))) == (departed, arrived)
    assert row["planned_minutes"] == planned


def test_rows_are_in_order_of_when_they_were_known(recording: Recording) -> None:
    for name, column in (("trips", "departed_at"), ("arrivals", "arrived_at"), ("weather", "observed_at")):
        assert (np.diff(recording.tables[name].column(column).to_numpy()) >= 0).all()


def test_contracts_refuse_one_row_the_wind_of_a_thousand_miles_an_hour(recording: Recording) -> None:
    refused = {name: Contract(getattr(sources, name)).check_batch(table).rejected for name, table in recording.tables.items()}
    assert {name: len(rows) for name, rows in refused.items()} == {"trips": 0, "arrivals": 0, "weather": 1, "places": 0}
    assert refused["weather"][0].reason == "wind_speed_ms: must be at most 120"


def test_derived_columns_take_nulls_and_single_rows() -> None:
    km = to_array([None, 0.0, 700.0, 5_000.0], Type.FLOAT)
    assert sources.haul(km).tolist() == ["unknown", "short", "medium", "transcontinental"]
    assert sources.haul(km[:1]).tolist() == ["unknown"]
    assert sources.pair(to_array(["b", "a"], Type.STR), to_array(["a", "b"], Type.STR)).tolist() == ["a-b", "a-b"]
    part = sources.day_part(np.array([1_357_000_000_000_000]), to_array(["America/New_York"], Type.STR))
    assert part.tolist() == ["weekday-4"]
    assert sources.pace(km[2:3], to_array([None], Type.FLOAT), to_array([70.0], Type.FLOAT)).tolist() == [10.0]


def test_taxi_trips_fit_the_same_declaration(data_folder: Path) -> None:
    folder = data_folder / "nyc-taxi-yellow-sample"
    blind, router = load("taxi", folder), load("taxi-router", folder)
    assert blind.notes["trips"] == 240_000
    assert len(blind.tables["trips"]) == len(blind.tables["arrivals"]) == 240_000 - blind.notes["outside the protocol"] == 233_119
    assert blind.tables["trips"].column("distance_km").null_count == 233_119
    assert router.tables["trips"].column("distance_km").null_count == 0
    for name, table in blind.tables.items():
        assert not Contract(getattr(sources, name)).check_batch(table).rejected


def test_a_missing_data_set_says_where_it_was_looked_for(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(DataError, match="--data"):
            taxi.load(folder, router_distance=False)
    (tmp_path / taxi.FILE).write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be read"):
        taxi.load(tmp_path, router_distance=False)
