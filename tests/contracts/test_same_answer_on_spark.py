"""Spark against the oracle, and to the bit against the embedded engine: thousands of cases in one run, each with keys of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from oracle import Fact
from test_same_answer import EXAMPLES, HOUR, MINUTE, WORKED, T, a_system, batch, check, fact, same, some_facts, some_questions

from mainspring.columns import Array
from mainspring.feature_store.adapters.spark import SparkOfflineStore
from mainspring.feature_store.offline import AS_OF, OfflineStore

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:PySpark does not yet:FutureWarning")]


class Case(NamedTuple):
    facts: list[Fact]
    questions: list[tuple[Any, int]]
    kind: str = "event"
    known_as_of: bool = True


def drawn(strategy: st.SearchStrategy[Any]) -> list[Any]:
    """What the strategy gives, the same every time."""
    cases: list[Any] = []

    @seed(2025)
    @settings(max_examples=EXAMPLES, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(case: Any) -> None:
        cases.append(case)

    collect()
    assert len(cases) == EXAMPLES
    return cases


def answers(spark: Any, folder: Path, cases: list[Case]) -> list[list[list[Any]]]:
    """Per case and question the features in order; asserts that the embedded engine gives the same."""
    found: list[list[list[Any]]] = [[] for _ in cases]
    for kind, known_as_of in sorted({(case.kind, case.known_as_of) for case in cases}):
        chosen = [number for number, case in enumerate(cases) if (case.kind, case.known_as_of) == (kind, known_as_of)]
        facts = [_apart(number, one) for number in chosen for one in cases[number].facts]
        asked = [(number, _key(number, key), at) for number in chosen for key, at in cases[number].questions]
        file = str(folder / f"{kind}-{known_as_of}.parquet")
        pq.write_table(pa.Table.from_batches([batch(facts)]), file)
        keys, instants = pa.array([key for _, key, _ in asked], pa.string()), pa.array([at for _, _, at in asked], pa.int64())
        questions, system = pa.table({"k": keys, AS_OF: instants}), a_system(kind)
        columns = SparkOfflineStore(system, spark, lambda _, file=file: [file]).features(questions, known_as_of=known_as_of)
        embedded = OfflineStore(system, lambda _, file=file: [file]).features(questions, known_as_of=known_as_of)
        assert_same_to_the_bit(columns, embedded)
        for (number, _, _), *row in zip(asked, *(column.tolist() for column in columns.values()), strict=True):
            found[number].append(row)
    return found


def assert_same_to_the_bit(got: dict[str, Array], want: dict[str, Array]) -> None:
    assert list(got) == list(want)
    for name, column in want.items():
        assert got[name].dtype == column.dtype, name
        if column.dtype == object:
            differ = [row for row, (one, other) in enumerate(zip(got[name], column, strict=True)) if repr(one) != repr(other)]
            assert not differ, (name, differ[0], got[name][differ[0]], column[differ[0]])
        else:
            assert got[name].tobytes() == column.tobytes(), name


def _key(number: int, key: Any) -> str | None:
    return None if key is None else f"{number}:{key}"


def _apart(number: int, one: Fact) -> Fact:
    return Fact(_key(number, one.key), one.event_time, one.known_time, f"{number:06d}{one.event_id}", one.values)


def test_random_cases_get_the_oracles_answers(spark: Any, tmp_path: Path) -> None:
    strategy = st.builds(Case, some_facts(), some_questions, st.sampled_from(["event", "table"]), st.booleans())
    cases = drawn(strategy)
    for number, (case, got) in enumerate(zip(cases, answers(spark, tmp_path, cases), strict=True)):
        facts = [_apart(number, one) for one in case.facts]
        questions = [(_key(number, key), at) for key, at in case.questions]
        check(a_system(case.kind), facts, questions, got, case.known_as_of)


def test_any_floats_are_the_embedded_engines_to_the_bit(spark: Any, tmp_path: Path) -> None:
    def case(points: list[tuple[int, float, int]]) -> Case:
        rows = [
            Fact("p", T + at * MINUTE, T + at * MINUTE, f"e{i:02d}", {"x": x, "n": n, "s": "a", "b": True})
            for i, (at, x, n) in enumerate(points)
        ]
        return Case(rows, [("p", T), ("p", T - 30 * MINUTE)])

    point = st.tuples(st.integers(-90, 0), st.floats(-1e9, 1e9), st.integers(-(2**62), 2**62))
    cases = drawn(st.builds(case, st.lists(point, min_size=1, max_size=40)))
    assert all(len(got) == 2 for got in answers(spark, tmp_path, cases))


def test_worked_cases(spark: Any, tmp_path: Path) -> None:
    worked = [case for cases in WORKED.values() for case in cases]
    names = [feature.name for feature in a_system().features]
    got = answers(spark, tmp_path, [Case(case.facts, [("1", case.at)], case.kind, case.known_as_of) for case in worked])
    for case, [row] in zip(worked, got, strict=True):
        assert same(row[names.index(case.name)], case.want), case


def test_case_6_duplicate_questions_stay_as_they_are(spark: Any, tmp_path: Path) -> None:
    [got] = answers(spark, tmp_path, [Case([fact(T - HOUR, None, 4.0)], [("1", T), ("1", T - 2 * HOUR), ("1", T)])])
    assert len(got) == 3
    assert repr(got[0]) == repr(got[2]) != repr(got[1])
