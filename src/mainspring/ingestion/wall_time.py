"""Wall-clock times of recordings to instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from mainspring.clock import MINUTE, parse_instant

Minutes = npt.NDArray[np.int64]
_EPOCH = datetime(1970, 1, 1)
_STEP = 15


def to_instants(wall: Minutes, zone: str) -> npt.NDArray[np.int64]:
    """Instants (microseconds UTC) of wall-clock minutes since 1970-01-01 in an IANA zone, of the same shape.

    A time that clocks show twice is its first occurrence; one that they skip is taken with the offset before the change.
    """
    quarters, place = np.unique(wall // _STEP, return_inverse=True)
    offsets = np.array([_offset(int(quarter), zone) for quarter in quarters], dtype=np.int64)
    instants: npt.NDArray[np.int64] = (wall - offsets[place]) * MINUTE
    return instants


def ambiguous(wall: Minutes, zone: str) -> npt.NDArray[np.bool_]:
    """Which wall-clock times the zone's clocks show twice, of the same shape."""
    quarters, place = np.unique(wall // _STEP, return_inverse=True)
    twice = [_offset(int(quarter), zone) > _offset(int(quarter), zone, fold=1) for quarter in quarters]
    return np.array(twice, dtype=np.bool_)[place]


def wall_instant(text: str, zone: str) -> int:
    """The instant of one wall-clock time, written as ISO 8601 without an offset."""
    return parse_instant(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC))


def _offset(quarter: int, zone: str, fold: int = 0) -> int:
    moment = (_EPOCH + timedelta(minutes=quarter * _STEP)).replace(tzinfo=ZoneInfo(zone), fold=fold)
    offset = moment.utcoffset()
    assert offset is not None
    return round(offset.total_seconds() / 60)
