"""Local time: wall-clock fields of instants, per IANA time zone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mainspring.clock import DAY, HOUR, MINUTE, find_zone, to_datetime

_STEP = 15 * MINUTE
_EPOCH_WEEKDAY = 3


class LocalTime(NamedTuple):
    """Wall-clock fields, each float64 of shape ``(n,)`` with NaN where the zone is null or unknown.

    ``hour`` is in [0, 24) with its fraction, ``weekday`` 0 for Monday, ``day`` counts from 1970-01-01.
    """

    hour: npt.NDArray[np.float64]
    weekday: npt.NDArray[np.float64]
    day: npt.NDArray[np.float64]


def local_time(instants: npt.NDArray[np.int64], zones: npt.NDArray[Any]) -> LocalTime:
    """Wall-clock fields of ``instants`` (microseconds UTC) in ``zones`` (IANA names or None), both of shape ``(n,)``."""
    one = len(instants) == 1
    offsets = np.array([_offset(int(instants[0]) // _STEP, zones[0])]) if one else _offsets(instants, zones)
    wall = instants + offsets
    day = np.floor(wall / DAY)
    return LocalTime((wall - day * DAY) / HOUR, (day + _EPOCH_WEEKDAY) % 7, day)


def _offsets(instants: npt.NDArray[np.int64], zones: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    offsets = np.full(len(instants), np.nan)
    for zone in dict.fromkeys(zones.tolist()):
        here = np.array([one == zone for one in zones.tolist()], dtype=bool)
        steps, place = np.unique(instants[here] // _STEP, return_inverse=True)
        offsets[here] = np.array([_offset(int(step), zone) for step in steps])[place]
    return offsets


@lru_cache(maxsize=65_536)
def _offset(step: int, zone: str | None) -> float:
    """The zone's offset from UTC in microseconds during a quarter of an hour: no zone changes within one."""
    found = None if zone is None else find_zone(zone)
    if found is None:
        return float("nan")
    try:
        offset = to_datetime(step * _STEP).astimezone(found).utcoffset()
    except OverflowError:
        return float("nan")
    return float("nan") if offset is None else offset.total_seconds() * 1e6
