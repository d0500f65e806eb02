from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.clock import parse_instant
from mainspring.errors import DataError, DeclarationError, RequestError
from mainspring.ingestion import Contract, Quarantine
from mainspring.spec import Source, feature


@feature
def tip_share(tip, fare):
    return tip / fare


@feature(type=str)
def pair(zone, note):
    return np.array([None if b is None else f"{a}-{b}" for a, b in zip(zone, note, strict=True)], dtype=object)


@feature(type=int, default=-1)
def double_seats(seats):
    return np.array([None if seat is None else seat * 2 for seat in seats.tolist()], dtype=object)


@feature(type=int)
def hour(picked_at):
    return picked_at // 3_600_000_000 % 24


SCHEMA = {
    "ride_id": str,
    "picked_at": datetime,
    "seen_at": datetime | None,
    "zone": str,
    "note": str | None,
    "seats": int | None,
    "fare": float,
    "tip": float | None,
    "shared": bool,
    "clock": ZoneInfo | None,
}
RIDES = Source(
    "rides",
    SCHEMA,
    event_time="picked_at",
    event_id="ride_id",
    known_time="seen_at",
    allowed={"note": ["n", "m", "", "late", "early", "never"]},
    ranges={"fare": (0, 500), "seats": (1, None), "picked_at": ("2013-01-01", None)},
    derive=[tip_share, pair, double_seats, hour],
)
CONTRACT = Contract(RIDES)
T = parse_instant("2025-03-01T12:00:00Z")


def body(**changes: Any) -> dict[str, Any]:
    row = {
        "ride_id": "r1",
        "picked_at": "2025-03-01T12:00:00Z",
        "seen_at": "2025-03-01T12:05:00Z",
        "zone": "a",
        "note": "n",
        "seats": 2,
        "fare": 10,
        "tip": 1.5,
        "shared": False,
        "clock": "America/New_York",
    }
    return {name: value for name, value in (row | changes).items() if value is not ...}


def test_check_types_the_row_in_schema_order_with_derived_columns_last():
    row = CONTRACT.check(dict(reversed(body().items())))
    assert list(row) == [*SCHEMA, "tip_share", "pair", "double_seats", "hour"]
    assert row["picked_at"] == T
    assert type(row["fare"]) is float
    assert (row["tip_share"], row["pair"], row["double_seats"], row["hour"]) == (0.15, "a-n", 4, 12)


def test_missing_nullable_columns_are_none_and_derived_nulls_take_their_default():
    row = CONTRACT.check(body(seen_at=..., note=..., seats=None, tip=...))
    assert [row[name] for name in ("seen_at", "note", "seats", "tip", "tip_share", "pair")] == [None] * 6
    assert row["double_seats"] == -1


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-01T12:00:00.000000000Z",
        "2025-03-01T12:00:00Z",
        "2025-03-01T12:00:00",
        "2025-03-01 07:00:00-05:00",
        "2025-03-01T12:00:00.000000+00:00",
    ],
)
def test_instants_with_and_without_offset(text):
    assert CONTRACT.check(body(picked_at=text))["picked_at"] == T


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"fare": ...}, "fare", "is missing"),
        ({"fare": None}, "fare", "null"),
        ({"fares": 1}, "fares", "Did you mean 'fare'?"),
        ({"fare": True}, "fare", "must be a number, not true or false"),
        ({"fare": "1"}, "fare", "must be a number, not text"),
        ({"fare": math.nan}, "fare", "finite"),
        ({"fare": -math.inf}, "fare", "finite"),
        ({"tip": 10**400}, "tip", "at most"),
        ({"fare": 500.01}, "fare", "must be at most 500"),
        ({"fare": -1}, "fare", "must be at least 0"),
        ({"seats": 1.0}, "seats", "must be a whole number"),
        ({"seats": True}, "seats", "must be a whole number, not true or false"),
        ({"seats": 2**63}, "seats", "at most"),
        ({"seats": 0}, "seats", "must be at least 1"),
        ({"shared": 1}, "shared", "must be true or false, not a whole number"),
        ({"zone": 5}, "zone", "must be text, not a whole number"),
        ({"zone": {"a": 1}}, "zone", "not an object"),
        ({"zone": "\ud800"}, "zone", "UTF-8"),
        ({"clock": "Mars/Olympus"}, "clock", "IANA time zone"),
        ({"note": "x"}, "note", "must be one of 'n', 'm', '', 'late', 'early' and 1 more"),
        ({"clock": "America"}, "clock", "IANA time zone"),
        ({"ride_id": ""}, "ride_id", "empty"),
        ({"picked_at": 1_740_000_000}, "picked_at", "ISO 8601"),
        ({"picked_at": "yesterday"}, "picked_at", "ISO 8601"),
        ({"picked_at": "2025-03-01T12:00:00.1234567Z"}, "picked_at", "to the microsecond"),
        ({"picked_at": "20250301T120000,000000001"}, "picked_at", "to the microsecond"),
        ({"picked_at": "2012-12-31T23:59:59Z"}, "picked_at", "must be at least 2013-01-01T00:00:00Z"),
        ({"seen_at": "0001-01-01T00:00:00+23:00"}, "seen_at", "must be at least 0001"),
    ],
)
def test_check_names_the_field_and_the_fault(changes, field, message):
    with pytest.raises(RequestError) as caught:
        CONTRACT.check(body(**changes))
    assert (caught.value.field, caught.value.status) == (field, 422)
    assert message in caught.value.reason


def test_a_giant_unknown_name_is_cut():
    with pytest.raises(RequestError) as caught:
        CONTRACT.check({"x" * 1_000_000: 1})
    assert len(str(caught.value)) < 300


def test_envelope_and_types_of_the_batch():
    checked = CONTRACT.check_rows([body(), body(ride_id="r2", seen_at=None)])
    assert checked.accepted.schema.names == [*RIDES.columns.names, "_event_id", "_event_time", "_known_time"]
    assert checked.accepted.schema.field("picked_at").type == pa.int64()
    assert checked.accepted.column("_event_id").to_pylist() == ["r1", "r2"]
    assert checked.accepted.column("_known_time").to_pylist() == [T + 300_000_000, T]


def test_rows_are_rejected_one_by_one():
    checked = CONTRACT.check_rows([body(), 7, body(fare="x"), body(ride_id="r4", extra=1)])
    assert checked.accepted.num_rows == 1
    assert [(one.row, one.reason.split(":")[0]) for one in checked.rejected] == [(1, "must be an object"), (2, "fare"), (3, "extra")]
    assert checked.rejected[1].row_values == body(fare="x")


def table(**columns: Any) -> pa.Table:
    base: dict[str, Any] = {
        "ride_id": ["r1", "r2", "r3"],
        "picked_at": pa.array([T, T + 1, T + 2], pa.timestamp("us", "America/New_York")),
        "zone": ["a", "b", "c"],
        "fare": [1.0, 2.0, 3.0],
        "shared": [True, False, True],
    }
    return pa.table({name: value for name, value in (base | columns).items() if value is not ...})


def test_batch_of_a_table_without_nullable_columns():
    checked = CONTRACT.check_batch(table())
    assert checked.rejected == []
    assert checked.accepted.column("picked_at").to_pylist() == [T, T + 1, T + 2]
    assert checked.accepted.column("_known_time").to_pylist() == [T, T + 1, T + 2]
    assert checked.accepted.column("tip_share").null_count == 3


@pytest.mark.parametrize(
    ("column", "values", "kept", "reason"),
    [
        ("fare", [1.0, math.nan, 3.0], [1.0, 3.0], "fare: must be a finite number"),
        ("fare", [1.0, None, 3.0], [1.0, 3.0], "fare: is null, and may not be"),
        ("fare", pa.array([1, 501, 3], pa.int16()), [1.0, 3.0], "fare: must be at most 500"),
        ("fare", [1.0, -0.1, 3.0], [1.0, 3.0], "fare: must be at least 0"),
        ("seats", [1.0, 2.5, None], [1, None], "seats: must be a whole number"),
        ("seats", [1.0, 1e300, None], [1, None], "seats: must be at most 9223372036854775807"),
        ("seats", [2.0**53, 2.0**53 + 2, None], [2**53, None], "seats: came as a float beyond 2**53"),
        ("seats", pa.array([2**63 - 1, 2**63, 3], pa.uint64()), [2**63 - 1, 3], "seats: must be at most 9223372036854775807"),
        ("ride_id", ["a", "", "c"], ["a", "c"], "ride_id: is empty; an id needs at least one character"),
        ("note", ["n", "x", None], ["n", None], "note: must be one of 'n'"),
        ("clock", ["UTC", "Mars/Olympus", None], ["UTC", None], "clock: must be an IANA time zone"),
        ("zone", pa.array(["a", None, "c"]).dictionary_encode(), ["a", "c"], "zone: is null, and may not be"),
        ("seen_at", ["2025-03-01T12:00:00Z", "no", "2025-03-01"], [T, T - 43_200_000_000], "seen_at: must be a date and time in ISO 8601"),
        ("seen_at", pa.array([T * 1000, T * 1000 + 1, None], pa.timestamp("ns")), [T, None], "seen_at: is finer than a microsecond"),
        ("seen_at", pa.array([0, 2**60, -1], pa.timestamp("s")), [0, -1_000_000], "seen_at: must be at most 9999"),
        ("seen_at", pa.array([T, -(2**62), None], pa.int64()), [T, None], "seen_at: must be at least 0001"),
    ],
)
def test_one_bad_cell_is_one_rejected_row(column, values, kept, reason):
    checked = CONTRACT.check_batch(table(**{column: values}))
    assert checked.accepted.column(column).to_pylist() == kept
    assert [one.row for one in checked.rejected] == [1]
    assert checked.rejected[0].reason.startswith(reason)
    assert checked.rejected[0].row_values["shared"] is False


@pytest.mark.parametrize("layout", [pa.string(), pa.large_string(), pa.string_view()])
def test_text_that_is_not_utf8_is_one_rejected_row_wherever_the_column_begins(layout):
    given = pa.array([b"x", b"caf\xc3\xa9", b"caf\xe9", None, "日本".encode()])
    wrong = (
        given.cast(pa.binary_view()).view(layout)
        if layout == pa.string_view()
        else pa.Array.from_buffers(layout, 5, given.cast(pa.large_binary() if layout == pa.large_string() else pa.binary()).buffers())
    )
    source = Source("s", {"k": str, "at": datetime, "v": str | None}, event_time="at", event_id="k")
    for start in (0, 1, 2):
        rows = pa.table({"k": list("abcde"), "at": [T] * 5, "v": wrong}).slice(start)
        checked = Contract(source).check_batch(rows)
        assert [(one.row, one.reason) for one in checked.rejected] == [(2 - start, "v: must be text that UTF-8 can hold")]
        assert checked.rejected[0].row_values == {"k": "c", "at": "2025-03-01T12:00:00Z", "v": "caf\\xe9"}
        assert checked.accepted.column("v").to_pylist() == ["x", "café", None, "日本"][start:][: 4 - start] if start < 2 else [None, "日本"]


def test_rejected_values_of_a_table_are_what_json_would_have_brought():
    given = table(seats=[2.0, None, 3.0], picked_at=[T, T + 1, T + 2], fare=[-1.0, 2.0, -1.0])
    values = [one.row_values for one in CONTRACT.check_batch(given).rejected]
    assert [(row["seats"], row["picked_at"]) for row in values] == [(2, "2025-03-01T12:00:00Z"), (3, "2025-03-01T12:00:00.000002Z")]
    assert all(CONTRACT.check({**row, "fare": 1.0})["seats"] for row in values)


NOT_UTF8 = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
ODD = {
    "list": pa.array([[1]]),
    "decimal": pa.array([Decimal("1.5")]),
    "struct": pa.array([{"a": 1}]),
    "null": pa.nulls(1),
    "binary": pa.array([b"x"]),
    "fixed binary": pa.array([b"x" * 16], pa.binary(16)),
    "half": pa.array(np.array([1.5], np.float16)),
    "unsigned": pa.array([2**64 - 1], pa.uint64()),
    "least integer": pa.array([-(2**63)]),
    "date": pa.array([date(2025, 1, 1)]),
    "last date": pa.array([2**31 - 1], pa.int32()).view(pa.date32()),
    "last date in ms": pa.array([2**62]).view(pa.date64()),
    "time of day": pa.array([1], pa.time32("s")),
    "duration": pa.array([1], pa.duration("us")),
    "first second": pa.array([-(2**62)], pa.timestamp("s")),
    "first nanosecond": pa.array([-(2**63) + 1], pa.timestamp("ns")),
    "first microsecond": pa.array([-(2**63)], pa.timestamp("us", "Asia/Tokyo")),
    "last millisecond": pa.array([2**63 - 1], pa.timestamp("ms")),
    "dictionary": pa.array(["n"]).dictionary_encode(),
    "dictionary of integers": pa.array([7]).dictionary_encode(),
    "dictionary of null": pa.DictionaryArray.from_arrays(pa.array([0]), pa.nulls(1, pa.string())),
    "dictionary not UTF-8": pa.DictionaryArray.from_arrays(pa.array([0]), NOT_UTF8),
    "not UTF-8": NOT_UTF8,
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["n"])),
    "view": pa.array(["n"], pa.string_view()),
    "large": pa.array(["n"], pa.large_string()),
    "zero byte": pa.array(["\0"]),
    "year 0": pa.array(["0000-01-01"]),
    "boolean": pa.array([True]),
}


@pytest.mark.parametrize("column", SCHEMA)
@pytest.mark.parametrize("kind", ODD)
def test_any_column_is_taken_rejected_in_words_or_refused(column, kind, tmp_path):
    for fare in (1.0, -1.0):
        columns = {"ride_id": ["r"], "picked_at": [T], "zone": ["a"], "fare": [fare], "shared": [True], column: ODD[kind]}
        refused = ""
        try:
            checked = CONTRACT.check_batch(pa.table(columns))
        except DataError as error:
            refused = str(error)
        if refused:
            assert f"column '{column}'" in refused
            continue
        assert checked.accepted.num_rows + len(checked.rejected) == 1
        Quarantine(tmp_path).add("rides", checked.rejected, T)
    assert Quarantine(tmp_path).damaged("rides") == 0


def test_int64_survives_exactly():
    big = [2**53 + 1, 2**63 - 1, 2**62 + 3]
    assert CONTRACT.check_batch(table(seats=big)).accepted.column("seats").to_pylist() == big


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"fare": ...}, "column 'fare': it is missing"),
        ({"fares": [1, 2, 3]}, "Did you mean 'fare'?"),
        ({"zone": [1, 2, 3]}, "the type int64 is not str"),
        ({"fare": ["1", "2", "3"]}, "the type string is not float"),
        ({"fare": [True, True, False]}, "the type bool is not float"),
        ({"shared": [1, 0, 1]}, "the type int64 is not bool"),
        ({"picked_at": [1.0, 2.0, 3.0]}, "the type double is not instant"),
    ],
)
def test_a_wrong_column_stops_the_whole_batch(columns, message):
    with pytest.raises(DataError, match=r"Source 'rides', column '\w+'") as caught:
        CONTRACT.check_batch(table(**columns))
    assert message in str(caught.value)


def test_a_failing_or_misdeclared_function_is_named():
    def raises(fare):
        raise KeyError(len(fare))

    def short(fare):
        return fare[:0]

    def text(fare):
        return np.array(["x"] * len(fare), dtype=object)

    for function in (raises, short, text):
        source = Source("s", {"k": str, "at": datetime, "fare": float}, event_time="at", event_id="k", derive=[feature(function)])
        with pytest.raises(DeclarationError, match=f"'{function.__name__}'"):
            Contract(source).check({"k": "a", "at": "2025-01-01", "fare": 1.0})


instants = st.datetimes(timezones=st.sampled_from([None, UTC])).map(lambda moment: moment.isoformat())
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
rows = st.fixed_dictionaries(
    {
        "ride_id": texts,
        "picked_at": instants,
        "seen_at": st.none() | instants,
        "zone": st.none() | texts,
        "note": st.none() | texts,
        "seats": st.none() | st.integers(-2, 2**63 - 1),
        "fare": st.none() | st.floats(-10, 600) | st.just(math.nan) | st.just(math.inf),
        "tip": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "shared": st.none() | st.booleans(),
        "clock": st.none() | st.sampled_from(["UTC", "Asia/Tokyo", "America"]) | texts,
    }
)
ARROW = {"seats": pa.int64(), "fare": pa.float64(), "tip": pa.float64(), "shared": pa.bool_()}


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, max_size=8))
def test_a_batch_and_its_rows_one_by_one_get_the_same_verdict(bodies):
    columns = {name: pa.array([row[name] for row in bodies], ARROW.get(name, pa.string()), from_pandas=False) for name in SCHEMA}
    batch, single = CONTRACT.check_batch(pa.table(columns)), CONTRACT.check_rows(bodies)
    assert batch.accepted.equals(single.accepted)
    assert [(one.row, one.reason) for one in batch.rejected] == [(one.row, one.reason) for one in single.rejected]
    accepted = [body for row, body in enumerate(bodies) if row not in {one.row for one in batch.rejected}]
    assert batch.accepted.select(list(RIDES.columns.names)).to_pylist() == [CONTRACT.check(body) for body in accepted]


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = leaves | st.lists(leaves, max_size=2) | st.dictionaries(st.text(max_size=5), leaves, max_size=2)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*SCHEMA, "other"]), values))
def test_whatever_comes_is_typed_or_refused(changes):
    refused: RequestError | None = None
    try:
        row = CONTRACT.check(body() | changes)
    except RequestError as error:
        refused = error
    if refused is not None:
        assert refused.field in {*SCHEMA, "other"}
        return
    kinds = {"str": str, "int": int, "float": float, "bool": bool, "instant": int}
    for field in RIDES.schema.fields:
        value = row[field.name]
        assert (value is None and field.nullable) or type(value) is kinds[field.type]


@given(st.datetimes(min_value=datetime(2013, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-23, 23))
def test_an_offset_does_not_change_the_instant(moment, hours):
    utc = moment.replace(tzinfo=UTC)
    shifted = (moment + timedelta(hours=hours)).isoformat() + f"{'-' if hours < 0 else '+'}{abs(hours):02}:00"
    assert CONTRACT.check(body(picked_at=shifted))["picked_at"] == parse_instant(utc)
