"""Sources of the ETA system: a trip schema for flights, taxis and what else goes from one place to another."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

import mainspring as ms
from mainspring.feature_engineering.local_time import local_time

Floats = npt.NDArray[np.float64]
Instants = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]

HAULS = np.array(["short", "medium", "long", "transcontinental", "unknown"], dtype=object)
HAUL_KM = (650.0, 1300.0, 2400.0)
DAY_PARTS = (6.0, 7.0, 10.0, 16.0, 20.0, 22.0)


@ms.feature(type=str)
def haul(distance_km: Floats) -> Texts:
    """Band of the distance: below 650, 1,300, 2,400 km, above, unknown."""
    return HAULS[np.where(np.isnan(distance_km), len(HAUL_KM) + 1, np.searchsorted(HAUL_KM, distance_km, "right"))]


@ms.feature(type=str)
def pair(origin: Texts, destination: Texts) -> Texts:
    """The two places whatever the direction: ``EWR-IAH``."""
    return np.array([f"{a}-{b}" if a < b else f"{b}-{a}" for a, b in zip(origin, destination, strict=True)], dtype=object)


@ms.feature(type=str)
def day_part(departed_at: Instants, timezone: Texts) -> Texts:
    """Part of the day at the origin, apart for weekdays and weekends: ``weekday-3``."""
    local = local_time(departed_at, timezone)
    part = np.searchsorted(DAY_PARTS, local.hour, "right")
    return np.array([f"{'weekend' if day >= 5 else 'weekday'}-{i}" for day, i in zip(local.weekday, part, strict=True)], dtype=object)


@ms.feature
def over_plan(minutes: Floats, planned_minutes: Floats) -> Floats:
    """Minutes beyond the timetable."""
    return minutes - planned_minutes


@ms.feature
def ground_minutes(minutes: Floats, airborne_minutes: Floats) -> Floats:
    """Minutes not in the air."""
    return minutes - airborne_minutes


@ms.feature
def air_over_plan(airborne_minutes: Floats, planned_minutes: Floats) -> Floats:
    """Minutes in the air beyond the timetable's minutes from gate to gate: winds show here, queues do not."""
    return airborne_minutes - planned_minutes


@ms.feature
def pace(minutes: Floats, airborne_minutes: Floats, distance_km: Floats) -> Floats:
    """Minutes a kilometre on the way, in the air where that is known."""
    return np.where(np.isnan(airborne_minutes), minutes, airborne_minutes) / distance_km


_INSTANTS = ("1990-01-01", "2100-01-01")
_TRIP = {
    "trip_id": str,
    "departed_at": datetime,
    "timezone": ZoneInfo,
    "origin": str,
    "destination": str,
    "area": str | None,
    "carrier": str | None,
    "service": str | None,
    "vehicle": str | None,
    "distance_km": float | None,
    "planned_minutes": float | None,
    "departure_delay": float | None,
}
_PUNCTUAL = [ms.Ahead("1d")]
_TRIP_RANGES = {"departed_at": _INSTANTS, "distance_km": (0, 25_000), "planned_minutes": (1, 2_880), "departure_delay": (-1_440, 10_080)}

trips = ms.Source(
    "trips",
    _TRIP,
    event_time="departed_at",
    event_id="trip_id",
    ranges=_TRIP_RANGES,
    expect=_PUNCTUAL,
    derive=[haul, pair, day_part],
    description="A departure; `timezone` is the origin's, `area` the destination's, `service` a flight or line number",
)
arrivals = ms.Source(
    "arrivals",
    {**_TRIP, "arrived_at": datetime, "minutes": float, "airborne_minutes": float | None},
    event_time="arrived_at",
    event_id="trip_id",
    ranges={**_TRIP_RANGES, "arrived_at": _INSTANTS, "minutes": (0.5, 2_880), "airborne_minutes": (0, 2_880)},
    expect=_PUNCTUAL,
    derive=[haul, pair, day_part, over_plan, ground_minutes, air_over_plan, pace],
    description="An arrival, known when it happens; `distance_km` may be what was driven",
)
weather = ms.Source(
    "weather",
    {
        "observation_id": str,
        "place": str,
        "observed_at": datetime,
        "temperature_c": float | None,
        "wind_from_deg": float | None,
        "wind_speed_ms": float | None,
        "precipitation_mm": float | None,
        "pressure_hpa": float | None,
        "visibility_km": float | None,
    },
    event_time="observed_at",
    event_id="observation_id",
    ranges={
        "observed_at": _INSTANTS,
        "temperature_c": (-90, 60),
        "wind_from_deg": (0, 360),
        "wind_speed_ms": (0, 120),
        "precipitation_mm": (0, 500),
        "pressure_hpa": (850, 1_100),
        "visibility_km": (0, 200),
    },
    expect=_PUNCTUAL,
    description="An observation at a place of departure",
)
places = ms.Source(
    "places",
    {"place": str, "effective_at": datetime, "latitude": float | None, "longitude": float | None},
    event_time="effective_at",
    event_id="place",
    kind="table",
    ranges={"latitude": (-90, 90), "longitude": (-180, 180)},
    description="An airport, a taxi zone",
)
