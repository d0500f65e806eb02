"""Packed rows read as arrays: what one row by itself gives, also of rows that are damaged."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import mainspring as ms
from mainspring.clock import MINUTE, parse_instant
from mainspring.errors import StorageError
from mainspring.feature_engineering.facts import EventIds, State, ViewPlan
from mainspring.feature_store.packed_rows import PackedRows
from mainspring.feature_store.packing import Row, RowFormat

T = parse_instant("2025-03-01T12:00:00Z")
paid = ms.Source(
    "paid", {"id": str, "at": datetime, "card": str, "amount": float | None, "shop": str | None}, event_time="at", event_id="id"
)
card = paid.per("card")


def a_form(*aggregates: Any) -> tuple[ViewPlan, RowFormat]:
    system = ms.System("s", "?", paid, aggregates, ms.Label(paid, "amount", on="id", matures_after="1d"), ms.LightGBM())
    ((view, own),) = system.views.items()
    plan = ViewPlan(view, own)
    return plan, RowFormat(plan)


PLAN, FORM = a_form(card.sum("amount", "1h"), card.last("shop"))
_, NUMBERS = a_form(card.sum("amount", "1h"))


def packed(form: RowFormat, facts: int) -> Row:
    times = T + MINUTE * np.arange(facts)
    amounts = np.where(np.arange(facts) % 3 == 2, np.nan, np.arange(facts, dtype=np.float64))
    shops = np.array([None if number % 4 == 3 else "shop" * (number % 5) for number in range(facts)], dtype=object)
    ids = EventIds.of([f"p{number}" for number in range(facts)])
    columns = [amounts, shops] if form is FORM else [amounts]
    return form.pack(State(times, times, ids, columns, PLAN.empty().base))


@pytest.mark.parametrize("form", [FORM, NUMBERS], ids=["texts", "numbers"])
def test_facts_of_all_rows_are_those_of_each(form: RowFormat) -> None:
    rows = [packed(form, facts) for facts in (1, 2, 17, form.few, form.few + 1, 200)]
    recent, older = [None, *(row.recent for row in rows), None], [None, *(row.older or None for row in rows), None]
    read = PackedRows(form, recent)
    assert read.intact.tolist() == read.whole().tolist() == [False, *[True] * len(rows), False]
    left, records, numbers = read.facts(read.whole(), older)
    assert left.tolist() == read.whole().tolist()
    for number, row in enumerate(rows, 1):
        parts = form.parts(row.recent, row.older)
        assert records[numbers == number].tobytes() == form.facts(row.recent, row.older or b"", parts)


@given(st.lists(st.integers(1, 80), min_size=1, max_size=4), st.integers(0), st.integers(0), st.integers(1, 255), st.booleans())
def test_a_damaged_row_is_left_out_and_no_other(facts: list[int], which: int, place: int, change: int, cut: bool) -> None:
    rows = [packed(FORM, count) for count in facts]
    which %= len(rows)
    recent: list[bytes | None] = [row.recent for row in rows]
    damaged = bytearray(rows[which].recent)
    place %= len(damaged)
    if cut:
        del damaged[place:]
    else:
        damaged[place] ^= change
    recent[which] = bytes(damaged)
    read = PackedRows(FORM, recent)
    whole = read.whole()
    left, records, numbers = read.facts(whole, [row.older for row in rows])
    try:
        FORM.parts(bytes(damaged), rows[which].older)
        fine = True
    except StorageError:
        fine = False
    assert left.tolist() == [number != which or fine for number in range(len(rows))]
    assert sorted(set(numbers.tolist())) == np.flatnonzero(left).tolist()
    assert len(records) == sum(count for count, kept in zip(facts, left.tolist(), strict=True) if kept)


def test_a_second_row_that_does_not_match_leaves_its_row_out() -> None:
    rows = [packed(FORM, 100), packed(FORM, 3)]
    read = PackedRows(FORM, [row.recent for row in rows])
    left, _, numbers = read.facts(read.whole(), [(rows[0].older or b"")[:-1], None])
    assert left.tolist() == [False, True]
    assert numbers.tolist() == [1] * 3


def test_of_no_rows_there_is_nothing() -> None:
    read = PackedRows(FORM, [])
    left, records, numbers = read.facts(read.whole(), [])
    assert (len(left), len(records), len(numbers), read.texts()) == (0, 0, 0, b"")
