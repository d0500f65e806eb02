"""Every engine against the oracle: random facts in random order, random questions, and the worked cases."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Fact, answer

import mainspring as ms
from mainspring.clock import HOUR, MINUTE, parse_instant
from mainspring.columns import to_values
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.online_view import OnlineView
from mainspring.feature_store.packing import RowFormat
from mainspring.feature_store.sliding import slides
from mainspring.schema import Status, Type
from mainspring.spec import Aggregate
from mainspring.storage.adapters.lmdb import LmdbKeyValue
from mainspring.storage.event_log import EventLog
from mainspring.storage.stores import open_key_value

T = parse_instant("2025-03-01T12:00:00Z")
EXAMPLES = int(os.environ.get("MAINSPRING_EXAMPLES", "100"))
"""Random cases per engine and store; the long suite asks for ten thousand."""
FUNCTIONS = ("count", "sum", "mean", "min", "max")


def a_system(kind: Any = "event", max_age: str | None = "2h") -> ms.System:
    request = ms.Source("asked", {"id": str, "at": datetime, "k": str | None}, event_time="at", event_id="id")
    schema = {"id": str, "at": datetime, "k": str | None, "x": float | None, "n": int | None, "s": str | None, "b": bool | None}
    source = ms.Source("facts", schema, event_time="at", event_id="id", kind=kind)
    view = source.per("k")
    features = [view.count("10m"), view.count()]
    for column in ("x", "n"):
        for function in FUNCTIONS[1:]:
            features += [getattr(view, function)(column, "10m"), getattr(view, function)(column, "1h"), getattr(view, function)(column)]
        features += [view.last(column), view.last(column, max_age=max_age, name=f"{column}_aged")]
    features.append(view.last("s"))
    for window in ("10m", None):
        features += [view.count(window, where="b"), view.sum("n", window, where="b"), view.mean("x", window, where="b")]
        features += [view.count(window, by="s"), view.max("x", window, by="n", where="b")]
        features += [view.variance("x", window), view.stddev("n", window), view.first("x", window), view.first_k("s", 2, window)]
        features += [view.last_k("n", 3, window), view.distinct("s", window), view.approx_distinct("n", window), view.top_k("s", 1, window)]
        features += [view.approx_percentile("x", 0.5, window), view.histogram("x", (-1, 0.1, 5), window), view.ewma("x", "5m", window)]
    features += [view.rate("10m"), view.time_since_last(), view.time_since_last(where="b"), view.streak("b", "1h"), view.last("b", "1h")]
    label = ms.Label(source, "x", on="id", matures_after="1d")
    lists = [feature.name for feature in features if feature.type == Type.JSON]
    return ms.System("contract", "?", request, features, label, ms.LightGBM(ignore=lists))


def a_batched_system(kind: Any = "event") -> ms.System:
    """Only what many keys are answered together for."""
    whole = a_system(kind)
    features = [one for one in whole.aggregates if one.is_newest or slides(one)]
    return ms.System("contract", "?", whole.request, features, whole.label, ms.LightGBM())


def batch(facts: list[Fact]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array([fact.event_id for fact in facts], pa.string()),
            "at": pa.array([fact.event_time for fact in facts], pa.int64()),
            "k": pa.array([fact.key for fact in facts], pa.string()),
            "x": pa.array([fact.values["x"] for fact in facts], pa.float64()),
            "n": pa.array([fact.values["n"] for fact in facts], pa.int64()),
            "s": pa.array([fact.values["s"] for fact in facts], pa.string()),
            "b": pa.array([fact.values["b"] for fact in facts], pa.bool_()),
            "_event_id": pa.array([fact.event_id for fact in facts], pa.string()),
            "_event_time": pa.array([fact.event_time for fact in facts], pa.int64()),
            "_known_time": pa.array([fact.known_time for fact in facts], pa.int64()),
        }
    )


def offline(system: ms.System, facts: list[Fact], questions: list[tuple[Any, int]], known_as_of: bool = True) -> list[list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "facts.parquet"
        pq.write_table(pa.Table.from_batches([batch(facts)]), path)
        store = OfflineStore(system, lambda _: [str(path)] if facts else [], threads=1)
        asked = pa.table(
            {"k": pa.array([key for key, _ in questions], pa.string()), AS_OF: pa.array([at for _, at in questions], pa.int64())}
        )
        columns = store.features(asked, known_as_of=known_as_of)
    return [[columns[name][row] for name in columns] for row in range(len(questions))]


def online(
    system: ms.System,
    facts: list[Fact],
    questions: list[tuple[Any, int]],
    cuts: int = 3,
    server: str | None = None,
    few: int = RowFormat.few,
) -> list[list[Any]]:
    """Answers of the online store, whose rows are divided beyond ``few`` facts."""
    with tempfile.TemporaryDirectory() as folder, patch.multiple(RowFormat, few=few, kept=min(few, RowFormat.kept)):
        log = EventLog(Path(folder) / "log", fsync=False)
        store = open_key_value(f"lmdb:{folder}/online" if server is None else f"{server}#{folder}")
        served = OnlineStore(system, store)
        for start in range(0, len(facts), cuts):
            log.append("facts", batch(facts[start : start + cuts]))
            served.apply(log)
        answers = [served.read({"k": key}, at) for key, at in questions]
        assert served.names == tuple(feature.name for feature in system.features)
        for one_by_one in (0, OnlineView.few):
            with patch.object(OnlineView, "few", one_by_one):
                together = served.read_many({"k": [key for key, _ in questions]}, [at for _, at in questions])
            for i, name in enumerate(served.names):
                assert to_values(together.values[name]) == [one.values[i] for one in answers]
            assert together.statuses.tolist() == [one.statuses for one in answers]
        store.close()
    return [one.values for one in answers]


def same(got: Any, want: Any) -> bool:
    if want is None:
        return got is None or (isinstance(got, float) and math.isnan(got))
    if isinstance(want, float):
        return got is not None and math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(want, list):
        return isinstance(got, list) and len(got) == len(want) and all(map(same, got, want))
    if isinstance(want, dict):
        return isinstance(got, dict) and got.keys() == want.keys() and all(same(got[group], want[group]) for group in want)
    return bool(got == want)


def near(aggregate: Aggregate, got: Any, want: Any) -> bool:
    if aggregate.function == "approx_percentile" and want is not None:
        return got is not None and math.isclose(got, want, rel_tol=0.0101)
    return same(got, want)


def check(system: ms.System, facts: list[Fact], questions: list[tuple[Any, int]], got: list[list[Any]], known_as_of: bool = True) -> None:
    for (key, at), row in zip(questions, got, strict=True):
        for aggregate, value in zip(system.aggregates, row, strict=True):
            want = answer(aggregate, facts, key, at, known_as_of)
            assert near(aggregate, value, want), (aggregate.name, key, at - T, value, want)


minutes = st.integers(-200, 60).map(lambda minute: T + minute * MINUTE)
values = st.fixed_dictionaries(
    {
        "x": st.none() | st.sampled_from([0.1, -2.5, 3.0, 1e6]),
        "n": st.none() | st.integers(-(2**60), 2**60),
        "s": st.none() | st.sampled_from(["a", "b"]),
        "b": st.none() | st.booleans(),
    }
)


@st.composite
def some_facts(draw: st.DrawFn) -> list[Fact]:
    facts = []
    for _ in range(draw(st.integers(0, 14))):
        at = draw(minutes)
        known = at + draw(st.sampled_from([0, 0, 0, 1, 30 * MINUTE, HOUR]))
        event_id = draw(st.sampled_from("abcdefghijklmnop"))
        fact = Fact(draw(st.sampled_from(["p", "q", None])), at, known, event_id, draw(values))
        facts += [fact] * draw(st.sampled_from([1, 1, 1, 2]))
    return _consistent(facts)


def _consistent(facts: list[Fact]) -> list[Fact]:
    """One version of an event per known time, and one key per event: what a source can send."""
    kept: dict[tuple[str, int], Fact] = {}
    owner: dict[str, Any] = {}
    for fact in facts:
        owner.setdefault(fact.event_id, fact.key)
        if owner[fact.event_id] == fact.key:
            kept.setdefault((fact.event_id, fact.known_time), fact)
    return [fact for fact in facts if kept.get((fact.event_id, fact.known_time)) is fact]


some_questions = st.lists(
    st.tuples(st.sampled_from(["p", "q", "never", None]), minutes.flatmap(lambda at: st.sampled_from([at, at + 1]))), min_size=1, max_size=6
)

divided = st.sampled_from([RowFormat.few, 1, 3])


@settings(max_examples=EXAMPLES, deadline=None)
@given(some_facts(), some_questions, st.sampled_from(["event", "table"]), st.booleans())
def test_offline_gives_the_oracles_answers(facts: list[Fact], questions: list[tuple[Any, int]], kind: str, known_as_of: bool) -> None:
    system = a_system(kind)
    check(system, facts, questions, offline(system, facts, questions, known_as_of), known_as_of)


@pytest.mark.parametrize("kept", ["lmdb", "redis"])
@settings(max_examples=EXAMPLES, deadline=None)
@given(some_facts(), some_questions, st.sampled_from(["event", "table"]), st.integers(1, 5), divided)
def test_online_gives_the_oracles_answers(
    kept: str, redis_url: str, facts: list[Fact], questions: list[tuple[Any, int]], kind: str, cuts: int, few: int
) -> None:
    system = a_system(kind)
    check(system, facts, questions, online(system, facts, questions, cuts, redis_url if kept == "redis" else None, few))


@settings(max_examples=EXAMPLES, deadline=None)
@given(some_facts(), some_questions, st.sampled_from(["event", "table"]), st.integers(1, 5), divided)
def test_a_batch_of_keys_gives_to_the_bit_what_single_keys_give(
    facts: list[Fact], questions: list[tuple[Any, int]], kind: str, cuts: int, few: int
) -> None:
    system = a_batched_system(kind)
    check(system, facts, questions, online(system, facts, questions, cuts, few=few))


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9_000, 60), values), min_size=4, max_size=30),
    st.lists(st.integers(-120, 90), min_size=1, max_size=4),
    st.integers(1, 7),
    divided,
)
def test_what_no_window_reaches_is_folded_and_still_counts(
    drawn: list[tuple[int, dict[str, Any]]], asked: list[int], cuts: int, few: int
) -> None:
    system = a_system()
    facts = [Fact("p", T + at * MINUTE, T + at * MINUTE, f"e{i}", one) for i, (at, one) in enumerate(drawn)]
    questions = [("p", T + at * MINUTE) for at in asked]
    check(system, facts, questions, online(system, facts, questions, cuts, few=few))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(st.integers(-90, 0), st.floats(-1e9, 1e9)), min_size=1, max_size=40), st.integers(1, 9), divided)
def test_online_and_offline_agree_to_the_bit(drawn: list[tuple[int, float]], cuts: int, few: int) -> None:
    system = a_system()
    rest = {"n": 1, "s": "a", "b": True}
    facts = [Fact("p", T + at * MINUTE, T + at * MINUTE, f"e{i:02d}", {"x": x, **rest}) for i, (at, x) in enumerate(drawn)]
    questions = [("p", T), ("p", T - 30 * MINUTE)]
    built, served = offline(system, facts, questions), online(system, facts, questions, cuts, few=few)
    for one, other in zip(built, served, strict=True):
        values = [None if isinstance(value, float) and math.isnan(value) else value for value in one]
        assert values == other


def fact(at: int, known: int | None, x: float, event_id: str | None = None) -> Fact:
    return Fact("1", at, at - 1 if known is None else known, event_id or f"{at}-{known}-{x}", {"x": x, "n": None, "s": None, "b": None})


@dataclass(frozen=True)
class Worked:
    """What a feature answers for key "1" at an instant."""

    facts: list[Fact]
    at: int
    want: Any
    name: str = "k__x_last"
    kind: str = "event"
    known_as_of: bool = True


def _ties() -> list[Worked]:
    three = [fact(T - HOUR, T - HOUR, 6.0, "a"), fact(T - HOUR, T, 7.0, "b"), fact(T - HOUR, None, 8.0, "z")]
    every = [Worked(list(order), T, 7.0) for order in itertools.permutations(three)]
    return [*every, Worked([three[2], three[0]], T, 6.0)]


def _sliding() -> list[Worked]:
    events = [(1, 10.0, "a"), (6, 20.0, "b"), (11, 5.0, "c"), (4, 40.0, "d"), (6, 20.0, "b")]
    facts = [fact(T + at * MINUTE, None, x, event_id) for at, x, event_id in events]
    wanted = {
        10 * MINUTE: (3, 70.0, 10.0, 40.0),
        11 * MINUTE: (3, 70.0, 10.0, 40.0),
        11 * MINUTE + 1: (3, 65.0, 5.0, 40.0),
        30 * MINUTE: (0, None, None, None),
    }
    names = ("k__count_10m", "k__x_sum_10m", "k__x_min_10m", "k__x_max_10m")
    return [
        Worked([facts[i] for i in np.random.default_rng(seed).permutation(5)], T + after, want, name)
        for seed in range(4)
        for after, answers in wanted.items()
        for name, want in zip(names, answers, strict=True)
    ]


_LATE = [fact(T - HOUR, T - HOUR, 9.0), fact(T - 90 * MINUTE, T, 8.0)]
_CORRECTED = [fact(T - HOUR, T - HOUR, 4.0, "a"), fact(T - HOUR, T + HOUR, 5.0, "a")]
_TWICE = [parse_instant("2025-11-02T05:30:00Z"), parse_instant("2025-11-02T06:30:00Z")]
"""01:30 in New York, first and second."""
_CLOCK = [fact(at, None, x) for at, x in zip(_TWICE, (1.0, 2.0), strict=True)]

WORKED = {
    "1: an event counts strictly after it happened, a table row from then on": [
        Worked([fact(T, T, 5.0)], T, None),
        Worked([fact(T, T, 5.0)], T + 1, 5.0),
        Worked([fact(T, T, 5.0)], T, 5.0, kind="table"),
        Worked([fact(T, T, 5.0)], T - 1, None, kind="table"),
    ],
    "2: max_age is inclusive and holds online": [
        Worked([fact(T - 2 * HOUR, None, 5.0)], T, 5.0, "x_aged"),
        Worked([fact(T - 2 * HOUR - 1, None, 6.0)], T, None, "x_aged"),
    ],
    "3: ties go to the newest known in every order": _ties(),
    "4: a late older event never replaces a newer one": [Worked(_LATE, T, 9.0), Worked(_LATE[::-1], T, 9.0)],
    "5: a correction counts from when it was known": [
        Worked(_CORRECTED, T, 4.0),
        Worked(_CORRECTED, T + HOUR, 5.0),
        Worked(_CORRECTED, T, 5.0, known_as_of=False),
    ],
    "a fact sent twice ties with itself, and not with one that is known later": [
        Worked([*[fact(T - HOUR, T - HOUR, 4.0, "a")] * 2, fact(T - HOUR, T + HOUR, 5.0, "b")], T, 4.0),
        Worked([*[fact(T - HOUR, T - HOUR, 4.0, "a")] * 2, fact(T - HOUR, T + HOUR, 5.0, "b")], T + HOUR, 5.0),
    ],
    "7: a sliding window is exact in any order": _sliding(),
    "8: an hour that the clock shows twice is two instants": [
        Worked(_CLOCK, _TWICE[0], 1.0, kind="table"),
        Worked(_CLOCK, _TWICE[1], 2.0, kind="table"),
    ],
}


@pytest.mark.parametrize("title", WORKED)
def test_worked_case(title: str) -> None:
    for case in WORKED[title]:
        system = a_system(case.kind)
        index = [feature.name for feature in system.features].index(case.name)
        answers = [offline(system, case.facts, [("1", case.at)], case.known_as_of)]
        if case.known_as_of:
            answers.append(online(system, case.facts, [("1", case.at)]))
        for got in answers:
            assert same(got[0][index], case.want), case


def test_case_6_duplicate_questions_stay_as_they_are() -> None:
    got = offline(a_system(), [fact(T - HOUR, None, 4.0)], [("1", T), ("1", T - 2 * HOUR), ("1", T)])
    assert len(got) == 3
    assert repr(got[0]) == repr(got[2]) != repr(got[1])


def test_statuses_say_why(tmp_path: Path) -> None:
    system = a_system()
    log, store = EventLog(tmp_path / "log"), LmdbKeyValue(tmp_path / "online", map_bytes=1 << 24)
    served = OnlineStore(system, store)
    log.append("facts", batch([fact(T - 3 * HOUR, None, 5.0)]))
    served.apply(log)
    status = dict(zip(served.names, served.read({"k": "1"}, T).statuses, strict=True))
    assert (status["k__x_last"], status["x_aged"], status["k__n_last"]) == (Status.PRESENT, Status.EXPIRED, Status.NULL)
    assert (status["k__count_10m"], status["k__x_mean_10m"]) == (Status.PRESENT, Status.NULL)
    before = dict(zip(served.names, served.read({"k": "1"}, T - 4 * HOUR).statuses, strict=True))
    assert before["k__x_last"] == Status.MISSING
    assert set(served.read({"k": "2"}, T).statuses) == {Status.UNKNOWN_KEY}
