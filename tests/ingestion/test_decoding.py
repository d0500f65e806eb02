"""Decoding straight from bytes says what the checks of the contract say, or nothing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from mainspring.errors import RequestError
from mainspring.ingestion import Contract
from mainspring.spec import Source
from mainspring.systems.eta import system

SOURCE = Source(
    "rides",
    {
        "ride": str,
        "at": datetime,
        "km": float,
        "seats": int | None,
        "express": bool | None,
        "zone": ZoneInfo | None,
        "kind": str | None,
        "note": str | None,
        "ended_at": datetime | None,
    },
    event_time="at",
    event_id="ride",
    ranges={"km": (0, 500), "seats": (1, 8), "at": ("2020-01-01", None)},
    allowed={"kind": ["taxi", "bus"]},
)
CONTRACT = Contract(SOURCE)
GOOD: dict[str, Any] = {"ride": "r1", "at": "2025-03-01T12:00:00Z", "km": 3}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.sampled_from(
        ["2025-03-01T12:00:00Z", "2025-03-01", "2025-03-01T12:00:00.1234567Z", "1999-01-01T00:00:00+02:00", "taxi", "Europe/Berlin"]
    ),
    st.lists(st.integers(), max_size=2),
)
bodies = st.dictionaries(st.sampled_from([*SOURCE.schema.names, "other"]), scalars, max_size=9)


def checked_rows(body: dict[str, Any]) -> Any:
    try:
        shared = CONTRACT.check_shared(body.get("shared", {}))
        return [CONTRACT.check(row, shared) for row in body["rows"]]
    except RequestError:
        return None


def checked(body: dict[str, Any]) -> Any:
    try:
        return CONTRACT.check(body)
    except RequestError:
        return None


@given(bodies, st.booleans())
def test_what_is_decoded_is_what_the_checks_give(changes: dict[str, Any], whole: bool) -> None:
    text = json.dumps({**(GOOD if whole else {}), **changes}).encode()
    decoded = CONTRACT.decode(text)
    if decoded is not None:
        expected = checked(msgspec.json.decode(text))
        assert decoded == expected
        assert [type(value) for value in decoded.values()] == [type(value) for value in expected.values()]
        assert list(decoded) == list(expected)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"km": 0},
        {"km": 500.0},
        {
            "seats": 8,
            "express": True,
            "zone": "Europe/Berlin",
            "kind": "bus",
            "note": "\N{SNOWMAN}",
            "ended_at": "2025-03-01T13:00:00.5+01:00",
        },
        {"seats": None, "express": None, "zone": None, "kind": None, "note": None, "ended_at": None},
    ],
)
def test_plainly_valid_rows_are_decoded(change: dict[str, Any]) -> None:
    body = json.dumps({**GOOD, **change}).encode()
    assert CONTRACT.decode(body) == CONTRACT.check(json.loads(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"ride": "r1"',
        b'{"ride": "\xff"}',
        b"[" * 100_000,
        json.dumps({**GOOD, "km": 501}).encode(),
        json.dumps({**GOOD, "ride": ""}).encode(),
        json.dumps({**GOOD, "at": "2019-12-31"}).encode(),
        json.dumps({**GOOD, "zone": "Mars/Base"}).encode(),
        json.dumps({**GOOD, "km": 1}).encode().replace(b" 1}", b" 1e999}"),
        json.dumps({**GOOD, "note": "x"}).encode().replace(b'"x"', b'"\\ud800"'),
    ],
)
def test_whatever_is_not_plainly_valid_is_left_to_the_checks(body: bytes) -> None:
    assert CONTRACT.decode(body) is None


TWICE = [
    b'{"ride": "r1", "at": "2025-03-01T12:00:00Z", "km": 3, "km": 3}',
    b'{"ride": "r1", "at": "2025-03-01T12:00:00Z", "km": 3, "k\\u006d" : 3}',
    b'{"km": 3, "ride": "r1", "at": "2025-03-01T12:00:00Z", "km": 3, "seats": null, "note": "a \\" quote"}',
]


@pytest.mark.parametrize("body", TWICE)
def test_a_key_that_is_given_twice_is_refused_by_its_name(body: bytes) -> None:
    with pytest.raises(RequestError, match="is given twice") as caught:
        CONTRACT.decode(body)
    assert caught.value.field == "km"


@given(st.text(max_size=9), st.sampled_from([None, "null", '"']))
def test_quotes_and_nulls_in_texts_are_no_keys(note: str, kind: str | None) -> None:
    body = {**GOOD, "note": note + (kind or ""), "seats": None}
    assert CONTRACT.decode(json.dumps(body).encode()) == CONTRACT.check(body)


@given(
    bodies,
    st.lists(bodies, min_size=1, max_size=4),
    st.sampled_from([frozenset(), frozenset(GOOD), frozenset({"at", "km"})]),
    st.booleans(),
)
def test_many_rows_are_decoded_to_what_the_checks_give(
    shared: dict[str, Any], rows: list[Any], common: frozenset[str], plain: bool
) -> None:
    shared = {**{name: GOOD[name] for name in common}, **({} if plain else shared)}
    rows = [{**{name: GOOD[name] for name in GOOD.keys() - common}, **row} for row in rows]
    body = {"rows": rows, **({"shared": shared} if shared else {})}
    text = json.dumps(body).encode()
    decoded = CONTRACT.decode_rows(text)
    if decoded is not None:
        expected = checked_rows(msgspec.json.decode(text))
        assert decoded == expected
        assert [[type(value) for value in row.values()] for row in decoded] == [[type(value) for value in row.values()] for row in expected]
        assert [list(row) for row in decoded] == [list(row) for row in expected]


@pytest.mark.parametrize(
    ("shared", "rows"),
    [
        (None, [GOOD]),
        ({}, [GOOD, {**GOOD, "km": 7, "seats": None}]),
        ({"at": GOOD["at"], "km": 4}, [{"ride": "a"}, {"ride": "b", "km": 5, "at": "2025-03-02"}]),
        (GOOD, [{}, {"ride": "b", "zone": "Europe/Berlin"}]),
        ({"seats": 3, "zone": "Europe/Berlin", "ended_at": "2025-03-02"}, [{**GOOD, "seats": None, "ended_at": None}, GOOD]),
        ({"seats": None}, [{**GOOD, "seats": 2}, GOOD]),
    ],
)
def test_plainly_valid_rows_are_decoded_together(shared: Any, rows: list[Any]) -> None:
    body = {"rows": rows, **({} if shared is None else {"shared": shared})}
    expected = checked_rows(body)
    assert expected is not None
    assert CONTRACT.decode_rows(json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"rows": []},
        {"rows": {}},
        {"rows": [[]]},
        {"rows": [GOOD], "more": 1},
        {"rows": [GOOD], "shared": None},
        {"rows": [GOOD], "shared": {"kilometres": 1}},
        {"rows": [GOOD], "shared": {"km": -1}},
        {"rows": [GOOD], "shared": {"at": "2019-12-31"}},
        {"rows": [GOOD], "shared": {"zone": "Mars/Base"}},
        {"rows": [GOOD, {"ride": "r2", "km": 3}]},
        {"rows": [GOOD, {**GOOD, "at": None}]},
        {"rows": [GOOD, {**GOOD, "zone": "Mars/Base"}]},
        {"rows": [GOOD, {**GOOD, "at": "2025-03-01T12:00:00.1234567Z"}]},
    ],
)
def test_rows_that_are_not_plainly_valid_are_left_to_the_checks(body: Any) -> None:
    assert CONTRACT.decode_rows(json.dumps(body).encode()) is None


def test_of_a_key_that_a_row_gives_twice_the_last_value_counts() -> None:
    twice = b'{"rows": [{"ride": "r1", "at": "2025-03-01T12:00:00Z", "km": 3, "km": 4}]}'
    assert CONTRACT.decode_rows(twice) == checked_rows(json.loads(twice))


def test_derived_columns_of_many_rows_come_last() -> None:
    contract = Contract(system.request)
    trip = {"departed_at": "2013-12-12T17:05:00-05:00", "timezone": "America/New_York", "origin": "JFK"}
    rows = [{"trip_id": f"t{number}", "destination": place} for number, place in enumerate(["LAX", "SEA"])]
    assert contract.decode_rows(json.dumps({"shared": trip, "rows": rows}).encode()) == [contract.check({**trip, **row}) for row in rows]
