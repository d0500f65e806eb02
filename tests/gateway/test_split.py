from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.gateway import assign

UNITS = [f"user-{number}" for number in range(20_000)]
shares = st.floats(0, 1)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("salt", ["v1", "v2"])
def test_the_share_is_kept_within_one_percent(share, salt):
    assert sum(assign(unit, share, salt) for unit in UNITS) / len(UNITS) == pytest.approx(share, abs=0.01)


@given(st.text(), shares, shares, st.text())
def test_who_is_in_stays_in_as_the_share_rises(unit, one, other, salt):
    low, high = sorted((one, other))
    assert assign(unit, high, salt) or not assign(unit, low, salt)


@given(st.text(), st.text())
def test_nobody_at_zero_and_everybody_at_one(unit, salt):
    assert not assign(unit, 0.0, salt)
    assert assign(unit, 1.0, salt)


def test_another_version_draws_its_own_units():
    first = {unit for unit in UNITS if assign(unit, 0.1, "v1")}
    second = {unit for unit in UNITS if assign(unit, 0.1, "v2")}
    assert len(first & second) / len(first) == pytest.approx(0.1, abs=0.03)


def test_the_split_is_the_same_in_every_release():
    pinned = ["user-10", "user-14", "user-19", "user-30", "user-49", "user-58", "user-94"]
    assert [unit for unit in UNITS[:100] if assign(unit, 0.05, "v1")] == pinned


def test_unit_and_salt_do_not_run_together():
    pairs = [assign(f"{'a' * n}", 0.5, "a" * (40 - n)) for n in range(40)]
    assert len(set(pairs)) == 2
