"""Feature functions of the ETA system: NumPy arrays in, one array out, the same in training and in serving."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

import mainspring as ms
from mainspring.errors import MissingExtraError
from mainspring.feature_engineering.local_time import local_time

Floats = npt.NDArray[np.float64]
Instants = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]

_DAY_MINUTES = 1440.0
_EPOCH_ORDINAL = 719_163


@ms.feature
def local_clock(departed_at: Instants, timezone: Texts) -> Floats:
    """Wall-clock minutes since 1970-01-01 at the origin."""
    local = local_time(departed_at, timezone)
    return local.day * _DAY_MINUTES + local.hour * 60.0


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
    """1 on a public holiday of the United States, else 0."""
    days = local_clock // _DAY_MINUTES
    if len(days) == 1:
        return np.array([_is_holiday(days[0])])
    known, place = np.unique(days, return_inverse=True)
    return np.array([_is_holiday(day) for day in known])[place]


@ms.feature
def trip_km(distance_km: Floats, route__distance_km_mean: Floats, pair__distance_km_mean: Floats) -> Floats:
    """Distance of the trip; where the request has none, the mean of past trips on the route, or between the two places."""
    typical = np.where(np.isnan(route__distance_km_mean), pair__distance_km_mean, route__distance_km_mean)
    return np.where(np.isnan(distance_km), typical, distance_km)


@ms.feature
def wind_north(weather__wind_from_deg_last: Floats, weather__wind_speed_ms_last: Floats) -> Floats:
    """Northward component of where the ground wind comes from, in m/s: it decides which runways are in use."""
    return weather__wind_speed_ms_last * np.cos(np.radians(weather__wind_from_deg_last))


@ms.feature
def wind_east(weather__wind_from_deg_last: Floats, weather__wind_speed_ms_last: Floats) -> Floats:
    """Eastward component of where the ground wind comes from, in m/s."""
    return weather__wind_speed_ms_last * np.sin(np.radians(weather__wind_from_deg_last))


@ms.feature
def under_way(origin_trips__count_1d: Floats, origin__count_1d: Floats) -> Floats:
    """Departures of the last day less arrivals of trips from here in the same time."""
    return np.asarray(origin_trips__count_1d - origin__count_1d, dtype=np.float64)


@ms.feature
def destination_air(distance_km: Floats, destination__pace_mean_12h: Floats, destination__pace_mean_14d: Floats) -> Floats:
    """Minutes that the last half day's pace to the destination adds to what its last two weeks say: the wind aloft."""
    return (destination__pace_mean_12h - destination__pace_mean_14d) * distance_km


@ms.feature
def area_air(distance_km: Floats, area__pace_mean_6h: Floats, area__pace_mean_14d: Floats) -> Floats:
    """The same for everything near the destination, over six hours."""
    return (area__pace_mean_6h - area__pace_mean_14d) * distance_km


@ms.feature
def typical_pace(
    origin_part__pace_mean: Floats, destination_part__pace_mean: Floats, network__pace_mean_3h: Floats, network__pace_mean_1d: Floats
) -> Floats:
    """Minutes a kilometre at this part of the day from here and to there, by the network's last three hours against its day."""
    now = np.where(np.isnan(network__pace_mean_3h), 1.0, network__pace_mean_3h / network__pace_mean_1d)
    return (origin_part__pace_mean + destination_part__pace_mean) / 2.0 * np.where(np.isnan(now), 1.0, now)


@ms.feature
def paced_minutes(trip_km: Floats, typical_pace: Floats) -> Floats:
    """Minutes for the trip's distance at the typical pace."""
    return trip_km * typical_pace


@lru_cache(maxsize=4096)
def _is_holiday(day: float) -> float:
    from datetime import date

    return float("nan") if day != day else float(date.fromordinal(int(day) + _EPOCH_ORDINAL) in _calendar())


@lru_cache(maxsize=1)
def _calendar() -> Any:
    try:
        import holidays
    except ImportError as error:
        raise MissingExtraError("The feature 'holiday'", "holidays", "eta") from error
    return holidays.country_holidays("US")
