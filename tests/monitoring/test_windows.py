import numpy as np
import pyarrow as pa

from mainspring.monitoring import feature_arrays, split


def test_windows_lie_on_the_utc_grid_and_hold_every_row_once_in_order() -> None:
    table = pa.table({"as_of": [25, 3, 10, 9, -1, 29], "row": [0, 1, 2, 3, 4, 5]})
    found = [(start, end, rows["row"].to_pylist()) for start, end, rows in split(table, 10)]
    assert found == [(-10, 0, [4]), (0, 10, [1, 3]), (10, 20, [2]), (20, 30, [0, 5])]
    assert list(split(table.slice(0, 0), 10)) == []


def test_features_become_numbers_with_nan_or_objects_with_none() -> None:
    table = pa.table(
        {
            "feature.count": pa.array([1, None, 3], pa.int64()),
            "feature.flag": pa.array([True, False, None]),
            "feature.ratio": pa.array([0.5, float("nan"), None]),
            "feature.city": pa.array(["a", None, "b"]),
            "feature.code": pa.array(["x", None, "x"]).dictionary_encode(),
            "feature.void": pa.nulls(3),
            "status.count": [0, 1, 0],
            "score": [1.0, 2.0, 3.0],
        }
    )
    found = feature_arrays(table)
    assert list(found) == ["count", "flag", "ratio", "city", "code", "void"]
    np.testing.assert_array_equal(found["count"], [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(found["flag"], [1.0, 0.0, np.nan])
    np.testing.assert_array_equal(found["ratio"], [0.5, np.nan, np.nan])
    assert [found[name].tolist() for name in ("city", "code", "void")] == [["a", None, "b"], ["x", None, "x"], [None] * 3]
