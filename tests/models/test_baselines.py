from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.columns import to_array
from mainspring.models.baselines import GroupMedians, LinearLine, recent_ratio
from mainspring.schema import Type


def test_a_line_is_found_and_a_null_input_is_typical() -> None:
    x = np.array([1.0, 2.0, 3.0, np.nan])
    line = LinearLine.from_dict(LinearLine.fit(x, np.array([5.0, 7.0, 9.0, 100.0])).to_dict())
    assert line.predict(np.array([10.0, np.nan])) == pytest.approx([23.0, 7.0])
    assert (line.predict_one(10.0), line.predict_one(None)) == pytest.approx((23.0, 7.0))


@pytest.mark.parametrize("x", [[np.nan, np.nan], [4.0, 4.0]])
def test_without_spread_the_line_is_the_mean(x: list[float]) -> None:
    assert LinearLine.fit(np.array(x), np.array([1.0, 3.0])).predict_one(4.0) == 2.0


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.floats(-100, 100)), min_size=1, max_size=30))
def test_medians_are_numpys(rows: list[tuple[str | None, float]]) -> None:
    keys, values = to_array([key for key, _ in rows], Type.STR), np.array([value for _, value in rows])
    fitted = GroupMedians.from_dict(GroupMedians.fit([keys], values).to_dict())
    got = fitted.predict([to_array([*(key for key, _ in rows), "unseen"], Type.STR)])
    assert got[:-1] == pytest.approx([np.median(values[[one == key for one in keys]]) for key, _ in rows])
    assert got[-1] == pytest.approx(np.median(values))


times = st.integers(0, 60)
bands = st.sampled_from(["near", "far"])


@given(st.lists(st.tuples(times, bands, st.floats(0.5, 2)), max_size=25), st.lists(st.tuples(times, bands), min_size=1, max_size=10))
def test_recent_ratio_is_the_loop_written_out(labels: list[tuple[int, str, float]], questions: list[tuple[int, str]]) -> None:
    got = recent_ratio(
        np.array([at for at, _ in questions]), np.full(len(questions), 10.0), to_array([band for _, band in questions], Type.STR),
        np.array([at for at, _, _ in labels], dtype=np.int64), to_array([band for _, band, _ in labels], Type.STR),
        np.array([ratio for _, _, ratio in labels], dtype=np.float64), window=20, delay=5,
    )  # fmt: skip
    for value, (at, band) in zip(got, questions, strict=True):
        seen = [ratio for known, one, ratio in labels if one == band and at - 25 <= known < at - 5]
        assert value == pytest.approx(10.0 * (sum(seen) / len(seen) if seen else 1.0))
