from __future__ import annotations

import numpy as np
import pytest

from mainspring.clock import parse_instant
from mainspring.columns import to_array
from mainspring.feature_engineering.local_time import local_time
from mainspring.ingestion.wall_time import ambiguous, to_instants, wall_instant
from mainspring.schema import Type

CASES = [
    ("2025-11-02T05:30:00Z", "America/New_York", 1.5, 6),
    ("2025-11-02T06:30:00Z", "America/New_York", 1.5, 6),
    ("2025-11-02T07:30:00Z", "America/New_York", 2.5, 6),
    ("2025-03-09T07:00:00Z", "America/New_York", 3.0, 6),
    ("2025-04-05T14:45:00Z", "Australia/Lord_Howe", 1.75, 6),
    ("2025-04-05T15:15:00Z", "Australia/Lord_Howe", 1.75, 6),
    ("2025-01-01T18:45:00Z", "Asia/Kolkata", 0.25, 3),
    ("1969-12-31T23:00:00Z", "UTC", 23.0, 2),
]


def test_wall_clock_fields_in_every_zone_alone_and_together() -> None:
    instants = np.array([parse_instant(text) for text, _, _, _ in CASES])
    zones = to_array([zone for _, zone, _, _ in CASES], Type.STR)
    together = local_time(instants, zones)
    assert together.hour.tolist() == [hour for _, _, hour, _ in CASES]
    assert together.weekday.tolist() == [day for _, _, _, day in CASES]
    for i in range(len(CASES)):
        alone = local_time(instants[i : i + 1], zones[i : i + 1])
        assert (alone.hour[0], alone.weekday[0], alone.day[0]) == (together.hour[i], together.weekday[i], together.day[i])


@pytest.mark.parametrize("zone", [None, "Mars/Olympus", ""])
def test_no_zone_no_time(zone: str | None) -> None:
    for n in (1, 2):
        assert np.isnan(local_time(np.zeros(n, dtype=np.int64), to_array([zone] * n, Type.STR)).hour).all()


def minutes(text: str) -> int:
    return parse_instant(text) // 60_000_000


def test_a_time_shown_twice_is_its_first_and_a_skipped_one_has_the_old_offset() -> None:
    wall = np.array([minutes("2013-11-03T01:30"), minutes("2013-11-03T02:00"), minutes("2013-03-10T02:30"), minutes("2013-07-01T12:00")])
    instants = to_instants(wall, "America/New_York")
    assert instants.tolist() == [
        parse_instant(t) for t in ("2013-11-03T05:30Z", "2013-11-03T07:00Z", "2013-03-10T07:30Z", "2013-07-01T16:00Z")
    ]
    assert ambiguous(wall, "America/New_York").tolist() == [True, False, False, False]
    assert wall_instant("2013-11-01", "America/New_York") == parse_instant("2013-11-01T04:00Z")
