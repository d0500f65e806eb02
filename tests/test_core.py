"""Errors, instants, durations, clocks, fields, columns."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.clock import DAY, HOUR, ManualClock, format_instant, parse_duration, parse_instant
from mainspring.columns import from_arrow, to_array, to_values
from mainspring.errors import DeclarationError, MissingExtraError, RequestError, did_you_mean
from mainspring.schema import Field, Schema, Type, arrow_type


@pytest.mark.parametrize(
    ("text", "us"), [("50ms", 50_000), ("1s", 1_000_000), ("10m", 600_000_000), ("1h", HOUR), ("30d", 30 * DAY), ("2w", 14 * DAY)]
)
def test_durations(text: str, us: int) -> None:
    assert parse_duration(text) == us


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1.5h", "1 h", "1y"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(DeclarationError, match="Write for example '10m'"):
        parse_duration(text)


def test_instants_are_utc_and_exact() -> None:
    assert parse_instant("1970-01-01T00:00:00.000001") == 1
    assert parse_instant("2013-11-03T01:30:00-05:00") == parse_instant("2013-11-03T06:30:00Z")
    assert format_instant(parse_instant("9999-12-31T23:59:59.999999Z")) == "9999-12-31T23:59:59.999999Z"
    with pytest.raises(ValueError, match="yesterday"):
        parse_instant("yesterday")
    with pytest.raises(ValueError, match="finer than a microsecond"):
        parse_instant("2013-11-03T01:30:00.0000001Z")
    assert parse_instant("1970-01-01T00:00:00.000001000Z") == 1


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9999, 12, 31)))
def test_an_instant_written_is_read_back(moment: datetime) -> None:
    assert parse_instant(format_instant(parse_instant(moment))) == parse_instant(moment)


def test_a_clock_never_goes_back() -> None:
    clock = ManualClock(5)
    clock.advance_to(9)
    clock.advance_to(7)
    assert clock.now() == 9


def test_messages_name_the_mend() -> None:
    assert did_you_mean("amout", ["amount", "country"]) == " Did you mean 'amount'?"
    assert did_you_mean("zzz", ["b", "a"]) == " Known: a, b."
    assert str(MissingExtraError("The report", "matplotlib", "report")).endswith("pip install 'mainspring[report]'")
    assert str(RequestError("km", "must be a number")) == "km: must be a number"


def test_a_schema_takes_python_types() -> None:
    schema = Schema.of({"a": str, "b": int | None, "c": datetime}, "Source 'x'")
    assert schema.fields == (Field("a", Type.STR), Field("b", Type.INT, True), Field("c", Type.INSTANT))
    assert "b" in schema
    assert schema.arrow().types == [pa.string(), pa.int64(), pa.int64()]


@pytest.mark.parametrize(
    ("columns", "said"), [({"a": bytes}, "bytes"), ({"a": str | int}, "str | int"), ({"_a": str}, "'_a'"), ({"a__b": str}, "'a__b'")]
)
def test_what_is_no_schema(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Schema.of(columns, "Source 'x'")
    assert "Source 'x'" in str(caught.value)
    assert said in str(caught.value)


values = {
    Type.INT: st.none() | st.integers(-(2**63), 2**63 - 1),
    Type.FLOAT: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    Type.STR: st.none() | st.text(),
    Type.BOOL: st.none() | st.booleans(),
}


@given(st.sampled_from(sorted(values)).flatmap(lambda type_: st.tuples(st.just(type_), st.lists(values[type_], max_size=8))))
def test_values_survive_columns_exactly(given_: tuple[Type, list[Any]]) -> None:
    type_, held = given_
    assert to_values(to_array(held, type_)) == held
    arrow = pa.chunked_array([pa.array(held, arrow_type(type_))])
    assert to_values(from_arrow(arrow, type_)) == held


def test_integers_do_not_pass_through_floats() -> None:
    assert to_array([2**62 + 1, None], Type.INT).tolist() == [2**62 + 1, None]
    assert to_array([2**62 + 1], Type.INT).dtype == np.int64


@pytest.mark.parametrize("module", ["mainspring", "mainspring.cli"])
def test_starting_loads_nothing_heavy(module: str) -> None:
    heavy = "{'numpy', 'pyarrow', 'duckdb', 'lightgbm', 'pandas', 'matplotlib', 'uvicorn', 'rich'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
