from __future__ import annotations

import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.loop.load import schedule


def test_constant_arrivals_are_evenly_spaced():
    assert np.diff(schedule.constant(200, 1)).tolist() == [5_000_000] * 199


def test_poisson_arrivals_have_the_rate_and_their_own_gaps():
    due = schedule.poisson(1_000, 20, seed=3)
    gaps = np.diff(due)
    assert due[-1] / 1e9 == pytest.approx(20, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert (due == schedule.poisson(1_000, 20, seed=3)).all()


def test_recorded_arrivals_keep_their_gaps_times_the_speed():
    assert schedule.recorded([3_000_000, 1_000_000, 2_500_000], speed=2).tolist() == [0, 750_000_000, 1_000_000_000]


@pytest.mark.parametrize("instants", [[], [5], [5, 5]])
def test_too_few_recorded_instants_are_refused(instants):
    with pytest.raises(DataError, match="fewer than two instants"):
        schedule.recorded(instants, 1)
