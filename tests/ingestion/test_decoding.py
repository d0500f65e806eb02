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
