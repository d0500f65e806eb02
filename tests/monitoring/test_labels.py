from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import DataError
from mainspring.monitoring import match


def predictions(keys: list[Any], type_: pa.DataType | None = None) -> pa.Table:
    return pa.table(
        {
            "as_of": pa.array(range(len(keys)), pa.int64()),
            "request.trip": pa.array(keys, type_ or pa.int64()),
            "score": pa.array([10.0 + index for index in range(len(keys))]),
        }
    )


def facts(rows: list[tuple[Any, ...]], type_: pa.DataType | None = None) -> pa.Table:
    """Rows of key, label, known time, event time, event id."""
    key, label, known, event, id_ = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return pa.table(
        {
            "trip": pa.array(key, type_ or pa.int64()),
            "minutes": pa.array(label, pa.float64()),
            "_known_time": pa.array(known, pa.int64()),
            "_event_time": pa.array(event, pa.int64()),
            "_event_id": pa.array(id_, pa.int64()),
        }
    )


FACTS = [(7, 70.0, 100, 1, 1), (8, 80.0, 100, 1, 2), (7, 71.0, 200, 1, 3), (9, None, 100, 1, 4), (None, 1.0, 100, 1, 5)]


@pytest.mark.parametrize(
    ("now", "expected"),
    [(99, []), (100, [(0, 80.0, 100), (2, 70.0, 100), (4, 70.0, 100)]), (200, [(0, 80.0, 100), (2, 71.0, 200), (4, 71.0, 200)])],
)
def test_only_known_labels_count_and_the_newest_known_wins(now: int, expected: list[tuple[int, float, int]]) -> None:
    found = match(predictions([8, 5, 7, None, 7, 9]), facts(FACTS), on="trip", column="minutes", now=now)
    assert list(zip(*(found[name].to_pylist() for name in ("as_of", "label", "label_known_at")), strict=True)) == expected
    assert found.column_names == ["as_of", "request.trip", "score", "label", "label_known_at"]


def test_a_withdrawn_label_is_no_label_and_ties_go_to_the_newest_event_then_id() -> None:
    rows = [(1, 5.0, 100, 1, 1), (1, None, 200, 1, 2), (2, 5.0, 100, 2, 1), (2, 6.0, 100, 1, 9), (3, 5.0, 100, 1, 10), (3, 6.0, 100, 1, 9)]
    found = match(predictions([1, 2, 3]), facts(rows), on="trip", column="minutes", now=300)
    assert found["label"].to_pylist() == [5.0, 5.0]
    assert found["request.trip"].to_pylist() == [2, 3]


def test_nothing_on_either_side() -> None:
    assert match(predictions([1, 2]), facts([]), on="trip", column="minutes", now=300).num_rows == 0
    assert match(predictions([]), facts(FACTS), on="trip", column="minutes", now=300).num_rows == 0


def test_text_keys_match_whatever_their_arrow_form_and_other_types_are_refused() -> None:
    rows = [("a", 1.0, 1, 1, 1), ("b", 2.0, 1, 1, 2)]
    for type_ in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        found = match(predictions(["b", "c", None], type_), facts(rows, pa.string()), on="trip", column="minutes", now=1)
        assert found["label"].to_pylist() == [2.0]
    with pytest.raises(DataError, match=r"'request.trip' is int64 but 'trip' of the facts is string"):
        match(predictions([1]), facts(rows, pa.string()), on="trip", column="minutes", now=1)
    with pytest.raises(DataError, match=r"no column 'minute'.*Did you mean 'minutes'"):
        match(predictions([1]), facts(FACTS), on="trip", column="minute", now=1)
    with pytest.raises(DataError, match=r"predictions have no column 'request.trap'"):
        match(predictions([1]), facts(FACTS), on="trap", column="minutes", now=1)


SMALL = st.integers(0, 3)


@given(st.lists(st.none() | SMALL), st.lists(st.tuples(st.none() | SMALL, st.none() | st.floats(0, 9), SMALL, SMALL, SMALL)), SMALL)
def test_the_join_equals_the_plain_one(keys: list[int | None], rows: list[tuple[Any, ...]], now: int) -> None:
    rows = list({row[4]: row for row in rows}.values())
    expected = []
    for index, key in enumerate(keys):
        known = [row for row in rows if row[0] == key is not None and row[2] <= now]
        newest = max(known, key=lambda row: (row[2], row[3], row[4]), default=None)
        if newest is not None and newest[1] is not None:
            expected.append((index, newest[1], newest[2]))
    found = match(predictions(keys), facts(rows), on="trip", column="minutes", now=now)
    assert list(zip(*(found[name].to_pylist() for name in ("as_of", "label", "label_known_at")), strict=True)) == expected
