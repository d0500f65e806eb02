from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mainspring.clock import DAY
from mainspring.metrics import fit_reference
from mainspring.monitoring import DriftMonitor, Reading

Window = dict[str, np.ndarray]


def benign(days: int, *, columns: int = 10, rows: int = 1000, wobble: float = 0.05, season: float = 0.0, seed: int = 0) -> Iterator[Window]:
    """Days of normal columns and one of categories, whose means wobble from day to day, differ at weekends, and whose size varies."""
    rng = np.random.default_rng(seed)
    for day in range(days):
        size = int(rows * rng.uniform(0.3, 1.2))
        weekend = day % 7 >= 5
        window: Window = {f"x{index}": rng.normal(rng.normal() * wobble + season * weekend, 1, size) for index in range(columns)}
        names = ["home", "work", "shop", "park"]
        shares = np.array([0.1, 0.5, 0.3, 0.1]) if not (weekend and season) else np.array([0.5, 0.05, 0.3, 0.15])
        window["place"] = np.array(names, dtype=object)[rng.choice(4, size, p=shares)]
        yield window


def observed(windows: list[Window], monitor: DriftMonitor | None = None) -> list[dict[str, Reading]]:
    monitor = monitor or DriftMonitor()
    return [
        {reading.name: reading for reading in monitor.observe(day * DAY, (day + 1) * DAY, window)} for day, window in enumerate(windows)
    ]


def alarms(found: list[dict[str, Reading]]) -> list[tuple[int, str]]:
    return [(day, name) for day, readings in enumerate(found) for name, reading in readings.items() if reading.alarm]


@pytest.mark.parametrize("season", [0.0, 1.0])
def test_benign_days_and_weekly_seasons_do_not_alarm(season: float) -> None:
    found = observed(list(benign(84, season=season)))
    assert alarms(found) == []
    assert {reading.calibrated for reading in found[13].values()} == {False}
    assert {reading.calibrated for reading in found[20].values()} == {True}


def test_many_windows_that_do_not_differ_stay_within_the_promised_rate() -> None:
    found = observed(list(benign(60, columns=30, rows=2000, wobble=0.03, seed=1)))
    assert len({day for day, _ in alarms(found)}) <= 1


def test_a_shift_of_a_fifth_of_a_deviation_is_found_in_two_windows() -> None:
    windows = list(benign(45, columns=3, rows=10_000, wobble=0.03, seed=2))
    for window in windows[40:]:
        window["x1"] = window["x1"] + 0.2
    found = alarms(observed(windows))
    assert found[0] == (41, "x1")
    assert {name for _, name in found} == {"x1"}


def test_one_odd_window_is_not_an_alarm_and_does_not_join_the_baseline() -> None:
    windows = list(benign(40, columns=1, rows=5000, seed=3))
    windows[30]["x0"] = windows[30]["x0"] + 0.5
    found = observed(windows)
    assert alarms(found) == []
    reading = found[30]["x0"]
    assert reading.threshold is not None
    assert reading.value > reading.threshold


def broken(values: np.ndarray, how: str) -> np.ndarray:
    values = values.copy()
    part = slice(0, int(0.4 * len(values)))
    if how == "missing":
        values[part] = None if values.dtype == object else np.nan
    elif how == "category":
        values[part] = "moon"
    elif how == "range":
        values[part] = 99.0
    elif how == "constant":
        values[:] = values[0]
    elif how == "void":
        return np.full(len(values), None, dtype=object)
    elif how == "type":
        return np.zeros(len(values)) if values.dtype == object else values.astype(str).astype(object)
    return values


@pytest.mark.parametrize(
    ("name", "how", "note"),
    [
        ("x0", "missing", "missing values rose to 40%"),
        ("x0", "range", "values out of range rose to 40%"),
        ("x0", "constant", "constant at"),
        ("x0", "void", "missing values rose to 100%"),
        ("x0", "type", "type changed: numbers expected"),
        ("place", "missing", "missing values rose to 40%"),
        ("place", "category", "new categories rose to 40%"),
        ("place", "constant", "constant at"),
        ("place", "type", "type changed: categories expected"),
    ],
)
@pytest.mark.parametrize("day", [1, 20])
def test_hard_breaks_alarm_at_once(name: str, how: str, note: str, day: int) -> None:
    windows = list(benign(day + 1, columns=1, seed=4))
    windows[day][name] = broken(windows[day][name], how)
    found = observed(windows)
    assert alarms(found) == [(day, name)]
    assert found[day][name].note.startswith(note)


def test_training_references_hold_the_very_first_window() -> None:
    windows = list(benign(2, columns=1, seed=5))
    references = {name: fit_reference(values) for name, values in windows[0].items()}
    windows[1]["x0"] = broken(windows[1]["x0"], "missing")
    assert alarms(observed(windows[1:], DriftMonitor(references))) == [(0, "x0")]
    assert alarms(observed(windows[1:])) == []


def test_a_rare_flag_is_no_constant_and_cold_start_says_so() -> None:
    rng = np.random.default_rng(6)
    found = observed([{"flag": (rng.random(300) < 0.003).astype(float)} for _ in range(40)])
    assert alarms(found) == []
    assert [found[day]["flag"].threshold is None for day in (0, 6, 7)] == [True, True, False]
    assert found[13]["flag"].note == "uncalibrated"
    assert found[14]["flag"].note == ""


def test_two_uncalibrated_windows_above_the_effect_alarm() -> None:
    windows = list(benign(11, columns=1, rows=5000, seed=7))
    for window in windows[9:]:
        window["x0"] = window["x0"] + 0.5
    found = observed(windows)
    assert alarms(found) == [(10, "x0")]
    assert not found[10]["x0"].calibrated


def test_what_lasts_becomes_the_new_normal_with_bins_of_its_own() -> None:
    windows = list(benign(90, columns=1, seed=8))
    for window in windows[30:]:
        window["x0"] = window["x0"] + 100
    for window in windows[88:]:
        window["x0"] = window["x0"] + 1
    found = observed(windows)
    assert [day for day, _ in alarms(found)] == [*range(30, 44), 89]
    assert found[43]["x0"].note == "values out of range rose to 100%; taken as the new normal"
    assert found[44]["x0"].calibrated


def test_few_rows_are_not_judged_and_features_may_come_late() -> None:
    monitor = DriftMonitor()
    assert monitor.observe(0, DAY, {}) == []
    (few,) = monitor.observe(0, DAY, {"x": np.zeros(49)})
    assert (few.threshold, few.alarm, few.rows, few.note) == (None, False, 49, "fewer than 50 rows")
    (enough,) = monitor.observe(DAY, 2 * DAY, {"x": np.zeros(50)})
    assert (enough.value, enough.alarm) == (0.0, False)


def test_replaying_the_windows_rebuilds_the_state() -> None:
    windows: list[dict[str, Any]] = list(benign(60, columns=2, season=0.5, seed=9))
    for window in windows[30:46]:
        window["x1"] = window["x1"] * 3
    live, rebuilt = DriftMonitor(), DriftMonitor()
    assert observed(windows[:50], live) == observed(windows[:50], rebuilt)
    assert observed(windows[50:], live) == observed(windows[50:], rebuilt)


def test_without_a_season_the_second_window_is_already_held_against_the_first() -> None:
    windows = list(benign(4, columns=1, rows=5000, seed=10))
    for window in windows[2:]:
        window["x0"] = window["x0"] + 0.5
    assert alarms(observed(windows, DriftMonitor(season=1))) == [(3, "x0")]
