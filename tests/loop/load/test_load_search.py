from __future__ import annotations

import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.loop.load.recorder import OPEN, Load, Recorder
from mainspring.loop.load.search import find_max


def measured(rate: float, milliseconds: float, lag_ms: float = 0.0, failed: int = 0) -> Load:
    recorder = Recorder()
    for _ in range(1_000):
        recorder.answered(int(milliseconds * 1e6))
        recorder.late(int(lag_ms * 1e6))
    for _ in range(failed):
        recorder.failed("503")
    recorder.close_second(0.0)
    return recorder.finish(OPEN, 4, rate, 1.0)


@pytest.mark.parametrize("limit", [30.0, 100.0, 777.0, 12_345.0])
def test_the_most_is_found_within_five_percent(limit):
    found = find_max(lambda rate: measured(rate, 5 if rate <= limit else 50), 100, 0.02)
    assert 0.95 * limit <= found.rate <= limit
    assert len(found.loads) < 24


def test_failures_break_the_promise_too():
    assert 475 <= find_max(lambda rate: measured(rate, 1, failed=0 if rate <= 500 else 5), 100, 0.02).rate <= 500


def test_the_generators_own_limit_ends_the_search_and_is_named():
    found = find_max(lambda rate: measured(rate, 5, lag_ms=0 if rate < 1_000 else 30), 100, 0.02)
    assert found.rate == 800
    assert "the generator itself sent 1 % of requests 30.0" in found.because


def test_a_promise_that_never_holds_gives_nothing():
    assert find_max(lambda rate: measured(rate, 50), 100, 0.02).rate == 0


def test_a_promise_must_be_positive():
    with pytest.raises(DataError, match="must be positive"):
        find_max(lambda rate: measured(rate, 1), 0, 0.02)


def test_figures_of_no_answers_are_json_nulls():
    load = Recorder().finish(OPEN, 1, 10, 1.0)
    assert load.to_dict()["latency_ms"] == {"p50": None, "p90": None, "p95": None, "p99": None, "p99.9": None, "max": 0.0}
    assert np.isnan(load.percentile(0.5))
