"""New York yellow-taxi trips of 2018 and 2019 (NYC TLC), 10,000 of each month, into the same declaration as flights.

Zones instead of airports, no timetable and no weather. The distance that was driven is known after the ride, so it is part
of the arrival; on request it is also given with the departure, in place of the distance that a router would give.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.clock import SECOND
from mainspring.errors import DataError
from mainspring.ingestion.recording import Recording
from mainspring.ingestion.wall_time import ambiguous, to_instants, wall_instant
from mainspring.systems.eta.flights import MILE_KM, NEW_YORK, SINCE

FILE = "trips_2018_2019.parquet"
ZONES = range(1, 264)
SECONDS = (60, 7_200)
MILES = (0.1, 60.0)


def load(folder: Path | None, *, router_distance: bool) -> Recording:
    """The sample's trips; the second half of 2019 is replayed.

    ``router_distance`` gives requests the driven distance as a stand-in for a router's. Trips are kept as the sample's
    usual protocol keeps them: 1 to 120 minutes, 0.1 to 60 miles, known zones, departures of 2018 and 2019.

    Raises:
        DataError: ``folder`` is not given, or does not hold the file.
    """
    if folder is None or not (folder / FILE).is_file():
        raise DataError(f"The taxi recording needs {FILE} in a folder: give --data, for example $MAINSPRING_DATA/nyc-taxi-yellow-sample.")
    try:
        rows = pq.read_table(folder / FILE)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{folder / FILE} cannot be read ({error}). Fetch it again.") from error
    begun, ended = (_wall(rows, name) for name in ("pickup_datetime", "dropoff_datetime"))
    twice = ambiguous(begun // 60, NEW_YORK)
    departed = to_instants(begun // 60, NEW_YORK) + begun % 60 * SECOND
    keep = _kept(rows, ended - begun, departed)
    tables = _tables(rows.filter(pa.array(keep)), departed[keep], (ended - begun)[keep], np.flatnonzero(keep), router_distance)
    notes = {"trips": len(rows), "outside the protocol": int((~keep).sum()), "in the hour that clocks show twice": int(twice[keep].sum())}
    name = "taxi-router" if router_distance else "taxi"
    return Recording(name, tables, wall_instant("2019-07-01", NEW_YORK), wall_instant("2020-01-01", NEW_YORK), notes)


def _wall(rows: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(rows.column(name).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() // SECOND, dtype=np.int64)


def _kept(rows: pa.Table, seconds: npt.NDArray[np.int64], departed: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    miles = rows.column("trip_distance").to_numpy()
    kept = (seconds >= SECONDS[0]) & (seconds <= SECONDS[1]) & (miles >= MILES[0]) & (miles <= MILES[1])
    for name in ("pickup_location_id", "dropoff_location_id"):
        zone = rows.column(name).to_numpy()
        kept &= (zone >= ZONES.start) & (zone < ZONES.stop)
    inside = (departed >= wall_instant("2018-01-01", NEW_YORK)) & (departed < wall_instant("2020-01-01", NEW_YORK))
    return np.asarray(kept & inside, dtype=np.bool_)


def _tables(
    rows: pa.Table, departed: npt.NDArray[np.int64], seconds: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], router_distance: bool
) -> dict[str, pa.Table]:
    driven = pa.array(rows.column("trip_distance").to_numpy() * MILE_KM)
    nothing = pa.nulls(len(rows), pa.float64())
    vendor = rows.column("vendor_id").cast(pa.int64()).cast(pa.string())
    trips = pa.table(
        {
            "trip_id": pa.array([f"taxi-{number}" for number in numbers.tolist()]),
            "departed_at": departed,
            "timezone": pa.array([NEW_YORK] * len(rows)),
            "origin": _zone(rows, "pickup_location_id"),
            "destination": _zone(rows, "dropoff_location_id"),
            "area": pa.nulls(len(rows), pa.string()),
            "carrier": vendor,
            "service": pa.nulls(len(rows), pa.string()),
            "vehicle": pa.nulls(len(rows), pa.string()),
            "distance_km": driven if router_distance else nothing,
            "planned_minutes": nothing,
            "departure_delay": nothing,
        }
    )
    arrivals = trips.set_column(trips.column_names.index("distance_km"), "distance_km", driven)
    arrivals = arrivals.append_column("arrived_at", pa.array(departed + seconds * SECOND))
    arrivals = arrivals.append_column("minutes", pa.array(seconds / 60.0)).append_column("airborne_minutes", nothing)
    names = [f"zone-{zone}" for zone in ZONES]
    unknown = pa.nulls(len(names), pa.float64())
    places = pa.table({"place": names, "effective_at": [SINCE] * len(names), "latitude": unknown, "longitude": unknown})
    return {
        "trips": trips.sort_by("departed_at"),
        "arrivals": arrivals.sort_by("arrived_at"),
        "weather": _empty(
            "observation_id",
            "place",
            "observed_at",
            "temperature_c",
            "wind_from_deg",
            "wind_speed_ms",
            "precipitation_mm",
            "pressure_hpa",
            "visibility_km",
        ),
        "places": places,
    }


def _zone(rows: pa.Table, name: str) -> pa.ChunkedArray:
    return pc.binary_join_element_wise("zone", rows.column(name).cast(pa.string()), "-")


def _empty(*names: str) -> pa.Table:
    texts, instants = ("observation_id", "place"), ("observed_at",)
    types = {name: pa.string() if name in texts else pa.int64() if name in instants else pa.float64() for name in names}
    return pa.table({name: pa.array([], type_) for name, type_ in types.items()})
