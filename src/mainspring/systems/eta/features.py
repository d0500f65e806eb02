"""Feature functions of the ETA system: NumPy arrays in, one array out, the same in training and in serving."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

import mainspring as ms
from mainspring.feature_engineering.local_time import local_time

Floats = npt.NDArray[np.float64]
Instants = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]

_DAY_MINUTES = 1440.0
_EPOCH_ORDINAL = 719_163


@ms.feature
def local_clock(departed_at: Instants, origin_place__timezone_last: Texts) -> Floats:
    """Wall-clock minutes since 1970-01-01 at the origin."""
    local = local_time(departed_at, origin_place__timezone_last)
    return (local.day - _EPOCH_ORDINAL) * _DAY_MINUTES + local.hour * 60.0


@ms.feature
def local_hour(local_clock: Floats) -> Floats:
    """Hour of the day at the origin, with its fraction."""
    return local_clock % _DAY_MINUTES / 60.0


@ms.feature
def planned_hour(local_clock: Floats, departure_delay: Floats) -> Floats:
    """Hour of the day for which the departure was planned; the actual one where no delay is known."""
    return (local_clock - np.nan_to_num(departure_delay)) % _DAY_MINUTES / 60.0


@ms.feature
def weekday(local_clock: Floats) -> Floats:
    """Day of the week at the origin, Monday 0 (1970-01-01 was a Thursday)."""
    return (local_clock // _DAY_MINUTES + 3.0) % 7.0


@ms.feature
def holiday(local_clock: Floats) -> Floats:
    """1 on a public holiday of the United States, 0.5 on the day before or after one, else 0."""
    days = local_clock // _DAY_MINUTES
    if len(days) == 1:
        return np.array([_closeness(days[0])])
    known, place = np.unique(days, return_inverse=True)
    return np.array([_closeness(day) for day in known])[place]


@ms.feature
def trip_km(distance_km: Floats, route__distance_km_mean: Floats, pair__distance_km_mean: Floats) -> Floats:
    """Distance of the trip; where the request has none, the mean of what past trips of the route, or its reverse too, drove."""
    typical = np.where(np.isnan(route__distance_km_mean), pair__distance_km_mean, route__distance_km_mean)
    return np.where(np.isnan(distance_km), typical, distance_km)


@ms.feature
def bearing(
    origin_place__latitude_last: Floats,
    origin_place__longitude_last: Floats,
    destination_place__latitude_last: Floats,
    destination_place__longitude_last: Floats,
) -> Floats:
    """Initial great-circle bearing in degrees, clockwise from north."""
    south, north = np.radians(origin_place__latitude_last), np.radians(destination_place__latitude_last)
    turn = np.radians(destination_place__longitude_last - origin_place__longitude_last)
    east = np.sin(turn) * np.cos(north)
    up = np.cos(south) * np.sin(north) - np.sin(south) * np.cos(north) * np.cos(turn)
    return np.degrees(np.arctan2(east, up)) % 360.0


@ms.feature
def tailwind(bearing: Floats, weather__wind_from_deg_last: Floats, weather__wind_speed_ms_last: Floats) -> Floats:
    """Ground wind along the bearing in m/s, positive from behind."""
    return -weather__wind_speed_ms_last * np.cos(np.radians(weather__wind_from_deg_last - bearing))


@ms.feature
def wind_north(weather__wind_from_deg_last: Floats, weather__wind_speed_ms_last: Floats) -> Floats:
    """Northward component of where the ground wind comes from, in m/s: which runways are in use."""
    return weather__wind_speed_ms_last * np.cos(np.radians(weather__wind_from_deg_last))


@ms.feature
def wind_east(weather__wind_from_deg_last: Floats, weather__wind_speed_ms_last: Floats) -> Floats:
    """Eastward component of where the ground wind comes from, in m/s."""
    return weather__wind_speed_ms_last * np.sin(np.radians(weather__wind_from_deg_last))


@ms.feature
def under_way(origin_trips__count_3h: npt.NDArray[np.int64], origin__count_3h: npt.NDArray[np.int64]) -> Floats:
    """Departures of the last three hours less arrivals of trips from here in the same time."""
    return (origin_trips__count_3h - origin__count_3h).astype(np.float64)


@lru_cache(maxsize=4096)
def _closeness(day: float) -> float:
    if day != day:
        return np.nan
    ordinal = int(day) + _EPOCH_ORDINAL
    if _is_holiday(ordinal):
        return 1.0
    return 0.5 if _is_holiday(ordinal - 1) or _is_holiday(ordinal + 1) else 0.0


def _is_holiday(ordinal: int) -> bool:
    from datetime import date

    return date.fromordinal(ordinal) in _calendar()


@lru_cache(maxsize=1)
def _calendar() -> object:
    try:
        import holidays
    except ImportError as error:
        from mainspring.errors import MissingExtraError

        raise MissingExtraError("The feature 'holiday'", "holidays", "eta") from error
    return holidays.country_holidays("US")
