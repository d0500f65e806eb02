import numpy as np
import pyarrow as pa
import pytest

from mainspring.clock import DAY
from mainspring.errors import DataError
from mainspring.monitoring import ErrorMonitor, Reading, group_errors, window_errors

RNG = np.random.default_rng


def observed(levels: np.ndarray, seed: int = 0, rows: int = 200, expected: float = 1.0) -> list[Reading]:
    """Readings of windows whose errors are Laplace with MAE ``level``."""
    rng, monitor = RNG(seed), ErrorMonitor("eta", expected)
    return [monitor.observe(day * DAY, (day + 1) * DAY, rng.laplace(scale=level, size=rows)) for day, level in enumerate(levels)]


def wobbling(days: int, seed: int, sd: float = 0.15, memory: float = 0.5) -> np.ndarray:
    rng, level, levels = RNG(seed), 0.0, []
    for _ in range(days):
        level = memory * level + rng.normal() * sd * (1 - memory**2) ** 0.5
        levels.append(np.exp(level))
    return np.array(levels)


def test_calm_systems_rarely_alarm() -> None:
    episodes = 0
    for seed in range(20):
        alarms = [reading.alarm for reading in observed(wobbling(120, seed), seed)]
        episodes += sum(now and not before for before, now in zip([False, *alarms], alarms, strict=False))
    assert episodes <= 20 * 120 / 200


def test_a_step_up_is_found_in_two_windows_and_one_bad_day_is_not_an_alarm() -> None:
    for seed in range(10):
        levels = wobbling(60, seed, sd=0.1)
        levels[30] *= 4
        levels[45:] *= 2
        alarms = [index for index, reading in enumerate(observed(levels, seed)) if reading.alarm]
        assert alarms[0] == 46


def test_a_slow_rise_below_the_threshold_is_found() -> None:
    levels = wobbling(120, 3, sd=0.2, memory=0)
    levels[50:] *= 1.35
    readings = observed(levels, 3)
    first = next(reading for reading in readings if reading.alarm)
    assert 50 <= first.start // DAY <= 80
    assert first.note == "slow rise"
    assert first.threshold is not None
    assert first.value < first.threshold


def test_cold_start_holds_the_error_against_the_evaluation() -> None:
    readings = observed(np.full(6, 2.0), expected=1.0)
    assert [reading.alarm for reading in readings] == [False, True, True, True, True, True]
    assert not any(reading.calibrated for reading in readings)
    assert "in a row" in readings[0].note
    fine = observed(np.full(20, 1.0), expected=1.0)
    assert [reading.calibrated for reading in fine] == [False] * 14 + [True] * 6
    assert fine[0].note == "uncalibrated"
    assert fine[-1].note == ""
    assert fine[0].threshold is not None
    assert fine[0].threshold > 1.3


def test_a_lasting_level_becomes_the_new_one() -> None:
    levels = np.concatenate([np.full(28, 1.0), np.full(40, 3.0)])
    readings = observed(levels)
    alarms = [index for index, reading in enumerate(readings) if reading.alarm]
    assert alarms == list(range(29, 42))
    assert readings[41].note.endswith("taken as the new level")


def test_few_labels_are_not_judged_and_nan_is_left_out() -> None:
    monitor = ErrorMonitor("eta", 1.0)
    empty = monitor.observe(0, DAY, np.zeros(0))
    assert (empty.alarm, empty.threshold, empty.rows) == (False, None, 0)
    few = monitor.observe(0, DAY, np.array([9.0] * 29 + [np.nan] * 100))
    assert (few.value, few.threshold, few.alarm, few.rows, few.note) == (9.0, None, False, 29, "fewer than 30 labels")
    perfect = [monitor.observe(day * DAY, (day + 1) * DAY, np.zeros(50)) for day in range(40)]
    assert not any(reading.alarm for reading in perfect)


def test_replaying_the_windows_rebuilds_the_state() -> None:
    levels = wobbling(70, 5)
    levels[50:] *= 2
    errors = [RNG(day).laplace(scale=level, size=100) for day, level in enumerate(levels)]
    live = ErrorMonitor("eta", 1.0)
    seen = [live.observe(day * DAY, (day + 1) * DAY, each) for day, each in enumerate(errors[:60])]
    rebuilt = ErrorMonitor("eta", 1.0)
    assert [rebuilt.observe(day * DAY, (day + 1) * DAY, each) for day, each in enumerate(errors[:60])] == seen
    for day in range(60, 70):
        assert rebuilt.observe(day * DAY, (day + 1) * DAY, errors[day]) == live.observe(day * DAY, (day + 1) * DAY, errors[day])


MATCHED = pa.table(
    {
        "as_of": pa.array([0, DAY - 1, DAY, 5 * DAY, 5 * DAY], pa.int64()),
        "request.origin": ["JFK", "LGA", "JFK", None, "JFK"],
        "feature.local_hour": [1, 1, 2, 1, 1],
        "score": [10.0, 12.0, 9.0, 5.0, None],
        "label": pa.array([8, 13, 10, 5, 1], pa.int64()),
    }
)


def test_errors_per_group() -> None:
    assert group_errors(MATCHED, ["origin"]).to_pylist() == [
        {"origin": "JFK", "rows": 2, "mae": 1.5, "bias": 0.5},
        {"origin": "LGA", "rows": 1, "mae": 1.0, "bias": -1.0},
        {"origin": None, "rows": 1, "mae": 0.0, "bias": 0.0},
    ]
    assert group_errors(MATCHED, ["origin", "local_hour"]).num_rows == 4
    with pytest.raises(DataError, match=r"no 'orign'.*Did you mean 'origin'"):
        group_errors(MATCHED, ["orign"])


def test_errors_per_window() -> None:
    assert window_errors(MATCHED, DAY).to_pylist() == [
        {"start": 0, "rows": 2, "mae": 1.5, "bias": 0.5},
        {"start": DAY, "rows": 1, "mae": 1.0, "bias": -1.0},
        {"start": 5 * DAY, "rows": 1, "mae": 0.0, "bias": 0.0},
    ]
