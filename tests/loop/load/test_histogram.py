from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.loop.load.histogram import Histogram

durations = st.lists(st.integers(0, 2**41 - 1), min_size=1, max_size=300)


@given(durations, st.floats(0, 1))
def test_a_quantile_is_the_nearest_rank_to_three_digits(values, q):
    held = Histogram()
    for part in np.array_split(np.array(values), 3):
        held.add(part)
    exact = sorted(values)[max(1, int(np.ceil(q * len(values) - 1e-9))) - 1]
    found = float(held.quantiles(q)) * 1e9
    assert exact * (1 - 1e-9) <= found <= exact * 1.001 + 1
    assert held.count == len(values)
    assert held.longest == max(values)


def test_what_is_out_of_range_counts_at_the_ends():
    held = Histogram()
    held.add(np.array([-5, 2**50]))
    assert held.quantiles((0.5, 1.0)).tolist() == [0.0, pytest.approx(2**41 / 1e9)]


def test_nothing_has_no_quantile():
    assert np.isnan(Histogram().quantiles((0.5, 0.99))).all()
