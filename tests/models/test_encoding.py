from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.columns import to_array
from mainspring.models.encoding import Encoder
from mainspring.schema import Type

TEXTS = ["x"] * 9 + ["y"] * 6 + ["rare"] + [None]
COLUMNS = {"kind": to_array(TEXTS, Type.STR), "n": to_array(range(17), Type.INT), "f": to_array([None, *range(16)], Type.FLOAT)}


def test_frequent_categories_come_first_and_rare_unknown_and_null_are_missing() -> None:
    encoder = Encoder.fit(COLUMNS, ["kind", "n", "f"])
    assert encoder.categorical == ("kind",)
    coded = encoder.transform({**COLUMNS, "kind": to_array(["y", "x", "rare", "new", None] + ["x"] * 12, Type.STR)})
    assert coded.shape == (17, 3)
    assert coded[:2, 0].tolist() == [1.0, 0.0]
    assert np.isnan(coded[2:5, 0]).all()
    assert np.isnan(coded[0, 2])


def test_nullable_integers_are_numbers() -> None:
    encoder = Encoder.fit({"n": to_array([1, None, 3], Type.INT)}, ["n"])
    assert encoder.categorical == ()
    assert encoder.transform({"n": to_array([None, 5], Type.INT)})[:, 0].tolist() == pytest.approx([np.nan, 5.0], nan_ok=True)


def test_a_null_where_training_had_none_is_the_training_median() -> None:
    encoder = Encoder.fit(COLUMNS, ["kind", "n", "f"])
    assert encoder.medians == {"n": 8.0}
    assert encoder.transform_row(["x", None, None]).tolist() == pytest.approx([0.0, 8.0, np.nan], nan_ok=True)


@given(
    st.lists(
        st.tuples(st.sampled_from(["x", "y", "z", None]), st.none() | st.integers(-5, 5), st.none() | st.floats(-9, 9)),
        min_size=1,
        max_size=6,
    )
)
def test_one_row_is_coded_as_many_are(rows: list[tuple[str | None, int | None, float | None]]) -> None:
    encoder = Encoder.from_dict(Encoder.fit(COLUMNS, ["kind", "n", "f"]).to_dict())
    kinds, numbers, floats = zip(*rows, strict=True)
    many = encoder.transform({"kind": to_array(kinds, Type.STR), "n": to_array(numbers, Type.INT), "f": to_array(floats, Type.FLOAT)})
    single = np.array([encoder.transform_row(row) for row in rows])
    assert np.array_equal(many, single, equal_nan=True)
