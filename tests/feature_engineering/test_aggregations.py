"""Mergeable states: however facts are cut up and shuffled, the answer is that of folding them at once."""

from __future__ import annotations

import functools
import math
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from mainspring.feature_engineering.aggregations import Streak, aggregation, merged
from mainspring.feature_engineering.sketches import HyperLogLog, Percentile
from mainspring.feature_engineering.states import Facts
from mainspring.spec import Aggregate

SOURCE = ms.Source("facts", {"id": str, "at": datetime, "x": float, "ok": bool, "kind": str}, event_time="at", event_id="id")
VIEW = SOURCE.per("id")
AGGREGATES = [
    *(VIEW.count(), VIEW.rate("1m"), VIEW.time_since_last(), VIEW.sum("x"), VIEW.mean("x"), VIEW.min("x"), VIEW.max("x")),
    *(VIEW.variance("x"), VIEW.stddev("x"), VIEW.first("x"), VIEW.last("x", "1m"), VIEW.first_k("x", 3), VIEW.last_k("x", 3)),
    *(VIEW.distinct("x"), VIEW.approx_distinct("x"), VIEW.top_k("x", 2), VIEW.approx_percentile("x", 0.9)),
    *(VIEW.histogram("x", (0, 1, 10)), VIEW.ewma("x", "1m"), VIEW.max("x", by="kind"), VIEW.count(by="kind")),
]
facts_strategy = st.lists(
    st.tuples(st.integers(0, 10**9), st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), st.sampled_from("abc")), min_size=1, max_size=12
)


def facts(rows: list[tuple[int, tuple[int, float, str]]]) -> Facts:
    rows = sorted(rows, key=lambda row: (row[1][0], row[0]))
    times = np.array([at for _, (at, _, _) in rows], dtype=np.int64)
    groups = np.array([kind for _, (_, _, kind) in rows], dtype=object)
    ranks = [(at, at, f"{number:03d}") for number, (at, _, _) in rows]
    return Facts(times, np.array([x for _, (_, x, _) in rows]), groups, lambda: ranks)


def close(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == other) or (isinstance(one, float) and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-4))


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda one: one.name)
@given(facts_strategy, st.randoms(use_true_random=False), st.integers(1, 4))
def test_parts_merge_to_the_whole_in_any_order(aggregate: Aggregate, drawn: list[Any], dice: Any, parts: int) -> None:
    fold, rows = aggregation(aggregate), list(enumerate(drawn))
    whole = fold.result(fold.fold(facts(rows)), 2 * 10**9)
    dice.shuffle(rows)
    state = None
    for part in range(parts):
        if rows[part::parts]:
            stored = msgspec.msgpack.decode(msgspec.msgpack.encode(fold.fold(facts(rows[part::parts]))))
            state = merged(fold, state, stored)
    assert close(fold.result(state, 2 * 10**9), whole)


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda one: one.name)
def test_nothing_is_zero_where_things_are_counted_and_null_elsewhere(aggregate: Aggregate) -> None:
    nothing = aggregation(aggregate).result(None, 0)
    zero: dict[str, Any] = {"count": 0, "rate": 0, "distinct": 0, "approx_distinct": 0, "histogram": [0, 0, 0, 0]}
    assert nothing == (zero.get(aggregate.function) if aggregate.by is None else None)


@pytest.mark.parametrize("n", [0, 1, 10, 1_024, 1_025, 30_000])
def test_numbers_of_different_values_are_estimated_within_five_standard_errors(n: int) -> None:
    sketch, values = HyperLogLog(), np.arange(n).repeat(2)
    state = sketch.fold(Facts(values, values, None, list)) if n else None
    assert sketch.result(state, 0) == (n if n <= sketch.FEW else pytest.approx(n, rel=5 * 1.04 / 64))
    parts = [sketch.fold(Facts(part, part, None, list)) for part in np.array_split(values, 7) if len(part)]
    assert sketch.result(functools.reduce(sketch.merge, parts) if parts else None, 0) == sketch.result(state, 0)


@given(st.lists(st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-8), min_size=1, max_size=50), st.floats(0, 1))
def test_percentiles_are_within_one_per_cent(values: list[float], q: float) -> None:
    sketch = Percentile(q)
    got = sketch.result(sketch.fold(Facts(np.array(values), np.array(values), None, list)), 0)
    assert got == pytest.approx(sorted(values)[math.floor(q * (len(values) - 1))], rel=0.0101)


@given(st.lists(st.booleans(), min_size=1, max_size=10), st.integers(1, 9))
def test_a_streak_goes_on_across_parts(values: list[bool], cut: int) -> None:
    def folded(part: list[bool]) -> Any:
        return Streak().fold(Facts(np.arange(len(part)), np.array(part), None, list)) if part else None

    state = merged(Streak(), folded(values[:cut]), folded(values[cut:]))
    assert Streak().result(state, 0) == next((i for i, value in enumerate(reversed(values)) if not value), len(values))


def test_whole_sums_beyond_64_bits_are_null_and_their_mean_is_not() -> None:
    source = ms.Source("n", {"id": str, "at": datetime, "n": int}, event_time="at", event_id="id")
    many = Facts(np.arange(4), np.full(4, 2**62), None, list)
    for aggregate, want in ((source.per("id").sum("n"), None), (source.per("id").mean("n"), float(2**62))):
        fold = aggregation(aggregate)
        assert fold.result(fold.fold(many), 0) == want
