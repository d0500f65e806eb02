from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mainspring.gateway.latencies import RELATIVE_ERROR, RecentLatencies


@given(st.lists(st.floats(1e-5, 90.0), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_its_error(values, share):
    recent = RecentLatencies()
    for value in values:
        recent.add(value, 0.0)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    estimate = recent.quantiles((share,), 1.0)
    assert estimate is not None
    assert abs(estimate[0] - exact) <= (RELATIVE_ERROR + 1e-3) * exact


def test_what_is_older_than_five_minutes_is_gone():
    recent = RecentLatencies()
    recent.add(1.0, 0.0)
    recent.add(0.001, 250.0)
    assert recent.quantiles((1.0,), 299.0)[0] > 0.9
    assert recent.quantiles((1.0,), 310.0)[0] < 0.01
    assert recent.quantiles((1.0,), 5000.0) is None
