"""Instants, durations and clocks.

An instant is an ``int``: microseconds since 1970-01-01T00:00:00Z. A duration is an ``int`` of elapsed microseconds.
Code that needs the time takes a `Clock`; only `SystemClock` reads it.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from mainspring.errors import DeclarationError

MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"us": 1, "ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d+)(us|ms|s|m|h|d|w)")
_TOO_FINE = re.compile(r"[.,]\d{6}\d*[1-9]")
_LONGEST_WHOLE = len("20130101T000000.000000")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=256)
def parse_duration(text: str) -> int:
    """Microseconds in a duration such as ``50ms``, ``10m``, ``1h``, ``30d``, ``2w``.

    Raises:
        DeclarationError: the text is not a whole number followed by a unit, or it is zero.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[1]) == 0:
        raise DeclarationError(f"Duration {text!r} is not a positive number and a unit. Write for example '10m', '1h' or '30d'.")
    return int(match[1]) * _UNITS[match[2]]


def parse_instant(value: str | datetime) -> int:
    """Microseconds since the epoch; a value without an offset is UTC.

    Raises:
        ValueError: the text is not an ISO 8601 date and time, or finer than a microsecond.
    """
    if isinstance(value, str) and len(value) > _LONGEST_WHOLE and _TOO_FINE.search(value):
        raise ValueError(f"{value!r} is finer than a microsecond")
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def format_instant(instant: int) -> str:
    """ISO 8601 in UTC, with microseconds only where there are any: ``2013-11-03T05:30:00Z``."""
    return to_datetime(instant).replace(tzinfo=None).isoformat() + "Z"


def to_datetime(instant: int) -> datetime:
    """The instant as an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=instant)


@lru_cache(maxsize=1_024)
def find_zone(name: str) -> ZoneInfo | None:
    """The IANA time zone of that name, None where there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


class Clock(Protocol):
    """Where the time comes from; a replay passes its own."""

    def now(self) -> int:
        """The present instant, microseconds since the epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """The present instant, microseconds since the epoch."""
        return time.time_ns() // 1_000


class ManualClock:
    """A clock that stands still until it is moved: tests and accelerated replays."""

    def __init__(self, instant: int) -> None:
        self._instant = instant

    def now(self) -> int:
        """The instant it was last moved to."""
        return self._instant

    def advance_to(self, instant: int) -> None:
        """Move to ``instant``; a clock never goes back, so an earlier instant changes nothing."""
        self._instant = max(self._instant, instant)
