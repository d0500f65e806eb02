"""Splits on random rows: no row on two sides, nothing learnt from what was not yet known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from mainspring.clock import DAY, HOUR
from mainspring.errors import DeclarationError, TrainingError
from mainspring.spec.splits import Fold, GroupSplit, LeaveLastOut, Rows, Split, TimeGroupSplit, TimeSplit, WalkForward, from_dict, to_dict

DURATIONS = st.sampled_from(["6h", "1d", "3d"])
MAYBE = st.none() | DURATIONS
TIMES = st.builds(TimeSplit, DURATIONS, MAYBE, MAYBE, st.sampled_from([None, "4d", "9d"]))
GROUPS = st.builds(GroupSplit, st.sampled_from([0.2, 0.3]), st.sampled_from([0.0, 0.3]), st.integers(0, 9))
BOTH = st.builds(TimeGroupSplit, TIMES.filter(lambda one: one.test is not None), GROUPS.filter(lambda one: one.test > 0))
LAST = st.builds(LeaveLastOut, st.integers(1, 3), st.integers(0, 3))
WALKS = st.builds(WalkForward, TIMES, st.integers(1, 4), DURATIONS)


@st.composite
def some_rows(draw: st.DrawFn) -> Rows:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 300))
    as_of = rng.integers(0, 20 * DAY // HOUR, n) * HOUR
    delay = rng.integers(0, draw(st.sampled_from([1, 30, 200])), n) * HOUR
    groups = rng.integers(0, draw(st.integers(1, 40)), n)
    return Rows(as_of, as_of + delay, groups, draw(st.sampled_from([None, 20 * DAY, 15 * DAY])))


def folds_of(split: Split, rows: Rows) -> tuple[Fold, ...]:
    try:
        return split.folds(rows)
    except TrainingError:
        reject()


@given(TIMES | GROUPS | BOTH | LAST | WALKS, some_rows())
def test_no_row_is_on_two_sides_and_numbers_rise(split: Split, rows: Rows) -> None:
    for fold in folds_of(split, rows):
        taken = np.concatenate([fold.train, fold.validation, fold.test])
        assert len(np.unique(taken)) == len(taken)
        for side in (fold.train, fold.validation, fold.test):
            assert (np.diff(side) > 0).all()
        assert len(fold.train)
        assert len(fold.validation)


def begins(rows: Rows, split: TimeSplit, end: int) -> tuple[int, int]:
    days = {"6h": DAY // 4, "1d": DAY, "3d": 3 * DAY, None: 0}
    test = end - days[split.test]
    return test - (days[split.gap] if split.test else 0) - days[split.validation], test


@given(TIMES | WALKS | BOTH, some_rows())
def test_labels_that_teach_were_known_before_the_next_side_begins(split: TimeSplit | WalkForward | TimeGroupSplit, rows: Rows) -> None:
    folds = folds_of(split, rows)
    each = split.each if isinstance(split, WalkForward) else split.time if isinstance(split, TimeGroupSplit) else split
    step = {"6h": DAY // 4, "1d": DAY, "3d": 3 * DAY}[split.step] if isinstance(split, WalkForward) else 0
    for back, fold in zip(reversed(range(len(folds))), folds, strict=True):
        validation, test = begins(rows, each, rows.end - back * step)
        gap = {"6h": DAY // 4, "1d": DAY, "3d": 3 * DAY, None: 0}[each.gap]
        assert (rows.label_known_at[fold.train] < validation).all()
        assert (rows.as_of[fold.train] < validation - gap).all()
        assert (rows.as_of[fold.validation] >= validation).all()
        if each.test is not None:
            assert (rows.label_known_at[fold.validation] < test).all()
            assert (rows.as_of[fold.validation] < test - gap).all()
            assert (rows.as_of[fold.test] >= test).all()
            assert (rows.as_of[fold.test] < rows.end - back * step).all()
        if each.window is not None:
            assert rows.as_of[fold.train].min() >= validation - gap - int(each.window[0]) * DAY


@given(GROUPS | BOTH, some_rows())
def test_no_group_is_on_two_sides(split: GroupSplit | TimeGroupSplit, rows: Rows) -> None:
    for fold in folds_of(split, rows):
        assert rows.group is not None
        sides = [set(rows.group[side].tolist()) for side in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, sides)) == len(set.union(*sides))


@given(LAST, some_rows())
def test_each_group_is_asked_what_comes_next(split: LeaveLastOut, rows: Rows) -> None:
    fold = folds_of(split, rows)[0]
    assert rows.group is not None
    for group in np.unique(rows.group).tolist():
        train, validation, test = (side[rows.group[side] == group] for side in (fold.train, fold.validation, fold.test))
        total = int((rows.group == group).sum())
        if total <= split.validation + split.test:
            assert (len(train), len(validation), len(test)) == (total, 0, 0)
            continue
        assert len(test) == split.test
        assert len(validation) <= split.validation
        newest = np.sort(rows.as_of[rows.group == group])
        begins = newest[total - split.validation - split.test]
        assert (rows.label_known_at[train] < begins).all()
        assert (rows.as_of[validation] >= begins).all()
        if split.test:
            assert (rows.as_of[test] >= newest[total - split.test]).all()
            assert (rows.label_known_at[validation] < newest[total - split.test]).all()


def test_purging_removes_what_a_naive_cut_would_have_learnt() -> None:
    as_of = np.arange(40) * DAY
    rows = Rows(as_of, as_of + 7 * DAY)
    fold = TimeSplit("5d", "5d", gap="8d").folds(rows)[0]
    assert fold.test.tolist() == list(range(36, 40)) or fold.test.tolist() == list(range(35, 40))
    naive = np.flatnonzero(as_of < as_of[fold.validation[0]])
    assert set(naive) - set(fold.train)
    assert (as_of[fold.train] + 7 * DAY < as_of[fold.validation[0]]).all()
    with pytest.raises(TrainingError, match=r"no validation rows of 40 .* lengthen the gap"):
        TimeSplit("5d", "5d").folds(rows)


def test_a_group_keeps_its_side_as_data_grows_and_shares_are_right() -> None:
    groups = np.array([f"user {number}" for number in range(20_000)], dtype=object)
    stamps = np.zeros(20_000, dtype=np.int64)
    split = GroupSplit(0.1, 0.2, seed=3)
    fold = split.folds(Rows(stamps, stamps, groups))[0]
    assert len(fold.validation) == pytest.approx(2000, abs=150)
    assert len(fold.test) == pytest.approx(4000, abs=200)
    first = split.folds(Rows(stamps[:5000], stamps[:5000], groups[:5000]))[0]
    assert first.test.tolist() == [row for row in fold.test.tolist() if row < 5000]
    assert GroupSplit(0.1, 0.2, seed=4).folds(Rows(stamps, stamps, groups))[0].test.tolist() != fold.test.tolist()


def test_walking_forward_grows_or_slides() -> None:
    as_of = np.arange(100) * DAY
    rows = Rows(as_of, as_of + HOUR)
    growing = WalkForward(TimeSplit("7d"), count=4, step="7d").folds(rows)
    assert [len(fold.train) for fold in growing] == sorted(len(fold.train) for fold in growing)
    assert [fold.validation[-1] for fold in growing] == [78, 85, 92, 99]
    assert len(set(np.concatenate([fold.validation for fold in growing]).tolist())) == sum(len(fold.validation) for fold in growing)
    sliding = WalkForward(TimeSplit("7d", window="20d", gap="2d"), count=4, step="7d").folds(rows)
    assert {len(fold.train) for fold in sliding} <= {19, 20}


@given(TIMES | GROUPS | BOTH | LAST | WALKS)
def test_a_split_survives_json(split: Split) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(split)))) == split


def test_what_cannot_be_split_is_refused_by_name() -> None:
    stamps = np.arange(10) * DAY
    for wrong, words in (
        (lambda: GroupSplit(0.6, 0.5), "leave nothing"),
        (lambda: TimeSplit("soon"), "Duration"),
        (lambda: LeaveLastOut(0), "at least 1"),
        (lambda: WalkForward(TimeSplit("1d"), count=0), "count=0"),
        (lambda: TimeGroupSplit(TimeSplit("1d"), GroupSplit(0.1, 0.1)), "test side"),
        (lambda: from_dict({"split": "TimeSplitt", "validation": "1d"}), "Did you mean 'TimeSplit'"),
        (lambda: from_dict({"split": "TimeSplit", "valid": "1d"}), "no setting 'valid'"),
    ):
        with pytest.raises(DeclarationError, match=words):
            wrong()
    for wrong, words in (
        (lambda: GroupSplit(0.1).folds(Rows(stamps, stamps)), "have no group"),
        (lambda: Rows(stamps, stamps[:3]), "shapes"),
        (lambda: Rows(stamps[:0], stamps[:0]), "shapes"),
        (lambda: TimeSplit("100d").folds(Rows(stamps, stamps)), "no training rows"),
    ):
        with pytest.raises(TrainingError, match=words):
            wrong()
