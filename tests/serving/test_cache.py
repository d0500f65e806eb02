"""Scores from the cache are the model's to the bit, and nothing that makes another answer is ever the same key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery import NOW, build, system
from mainspring.clock import HOUR
from mainspring.errors import DeclarationError, ServingError
from mainspring.gateway import background
from mainspring.gateway.backend import Backend, opened
from mainspring.model_registry.registry import Registry
from mainspring.serving.answer import Ask
from mainspring.serving.cache import ScoreCache
from mainspring.serving.features import FeatureRow
from mainspring.spec import Policy
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

ROW = {"drive": "new", "sent_at": NOW + HOUR, "depot": "north", "km": 10.0}


class Counted:
    """A version that gives a new number for every row that it scores."""

    def __init__(self, id: str = "model:a:1") -> None:
        self.id = id
        self.batches: list[int] = []
        self._next = 0.0

    def inputs(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return values

    def predict(self, rows: Sequence[FeatureRow]) -> list[Any]:
        self.batches.append(len(rows))
        self._next += len(rows)
        answers = [(self._next - number, None, None) for number in range(len(rows))]
        return [ServingError("bad") if row.values == ("bad",) else answer for row, answer in zip(rows, answers, strict=True)]


def rows(*values: Any) -> list[FeatureRow]:
    return [FeatureRow((value,), b"\0") for value in values]


def test_alike_in_one_call_are_scored_once_and_later_not_at_all() -> None:
    cache, version = ScoreCache(1_000, 10), Counted()
    first = cache.predict(version, rows(1, 2, 1, 1))  # type: ignore[arg-type]
    assert first[0] == first[2] == first[3] != first[1]
    assert cache.predict(version, rows(2, 1)) == [first[1], first[0]]  # type: ignore[arg-type]
    assert (version.batches, cache.hits, cache.misses) == ([2], 4, 2)


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), (1, 1.0), (1, True), ("1", 1), (None, 0.0), ("", None), (1.0, np.nextafter(1, 2))])
def test_what_differs_in_a_bit_is_another_row(one: Any, other: Any) -> None:
    cache, version = ScoreCache(1_000, 10), Counted()
    found = cache.predict(version, rows(one, other))  # type: ignore[arg-type]
    assert found[0] != found[1]


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3) | st.none()), unique=True, max_size=20))
def test_no_two_rows_have_one_key(given: list[tuple[Any, Any]]) -> None:
    cache, version = ScoreCache(1_000, 100), Counted()
    found = cache.predict(version, [FeatureRow(values, b"\0\0") for values in given])  # type: ignore[arg-type]
    assert len({one[0] for one in found}) == len(given)  # type: ignore[index]


def test_age_size_and_version_end_it() -> None:
    now = 0
    cache, version, other = ScoreCache(5, 2, lambda: now), Counted(), Counted("model:a:2")
    cache.predict(version, rows(1))  # type: ignore[arg-type]
    now = 4_999
    cache.predict(version, rows(1))  # type: ignore[arg-type]
    assert version.batches == [1]
    now = 5_000
    cache.predict(version, rows(1))  # type: ignore[arg-type]
    cache.predict(other, rows(1))  # type: ignore[arg-type]
    assert (version.batches, other.batches) == ([1, 1], [1])
    cache.predict(version, rows(1, 3))  # type: ignore[arg-type]
    cache.predict(other, rows(1))  # type: ignore[arg-type]
    assert other.batches == [1, 1], "it was the one used least recently of two"


def test_errors_are_not_remembered() -> None:
    cache, version = ScoreCache(1_000, 10), Counted()
    for _ in range(2):
        assert isinstance(cache.predict(version, rows("bad"))[0], ServingError)  # type: ignore[arg-type]
    assert version.batches == [1, 1]


def test_a_cache_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(DeclarationError, match="cache_rows=0 keeps nothing"):
        Policy(cache="5s", cache_rows=0)
    with pytest.raises(DeclarationError, match="Duration 'soon'"):
        Policy(cache="soon")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    cached = dataclasses.replace(system, policy=dataclasses.replace(system.policy, cache="10m"))
    return build(tmp_path_factory.mktemp("cache") / "space", versions=2, declared=cached)


@pytest.fixture
def backend(space: Workspace) -> Iterator[Backend]:
    with opened(space, stream=True) as backend:
        yield backend


def test_a_hit_is_the_models_answer_with_its_reasons_and_logged(backend: Backend, space: Workspace) -> None:
    first, second = (backend.answer(ROW, request_id=f"hit-{number}", explain=True) for number in (1, 2))
    assert (first.prediction, first.interval, first.reasons) == (second.prediction, second.interval, second.reasons)
    assert second.answered_by == "model"
    assert backend.counts() == {"cache_hits_total": 1, "cache_misses_total": 1}
    logged = {row["request_id"]: row for row in PredictionLog(space.predictions).read()[0].to_pylist()}
    assert logged["hit-1"]["score"] == logged["hit-2"]["score"] == second.prediction
    with background(backend) as url:
        import httpx

        text = httpx.get(f"{url}/metrics").text
    assert 'mainspring_cache_hits_total{system="delivery"} 1' in text


def test_with_and_without_it_a_thousand_answers_are_the_same_to_the_bit(backend: Backend) -> None:
    rng = np.random.default_rng(1)
    given = [{**ROW, "depot": str(rng.choice(["north", "south"])), "km": float(rng.integers(1, 60)) / 2} for _ in range(1_000)]
    cached, service = [], backend._service
    for start in range(0, 1_000, 50):
        cached += service.answer_many([Ask(f"c{n}", row, False, 0, 2**62) for n, row in enumerate(given[start : start + 50])])
    service._cache, cache = None, service._cache
    plain = [service.answer_many([Ask(f"p{n}", row, False, 0, 2**62)])[0] for n, row in enumerate(given)]
    assert cache is not None
    assert cache.hits > 500
    assert [(one.prediction, one.interval) for one in cached] == [(one.prediction, one.interval) for one in plain]  # type: ignore[union-attr]


def test_after_a_release_the_other_version_answers(tmp_path: Path) -> None:
    cached = dataclasses.replace(system, policy=dataclasses.replace(system.policy, cache="10m"))
    space = build(tmp_path / "space", versions=2, declared=cached)
    with opened(space, stream=True) as backend:
        assert backend.answer(ROW, request_id="a", explain=False).version == "model:delivery:2"
        registry = Registry(space.registry)
        registry.decide("delivery", "roll_back", at=NOW + 9, by="test", reason="test")
        registry.close()
        import time

        time.sleep(0.2)
        assert backend.answer(ROW, request_id="b", explain=False).version == "model:delivery:1"
        assert backend.counts()["cache_misses_total"] == 2
