"""The skew report: every cause provoked for real, in logs, stores and declarations that disagree."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from mainspring.clock import DAY, MINUTE, parse_instant
from mainspring.feature_store.causes import Cause, Difference
from mainspring.feature_store.hindsight import hindsight
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.skew import Skew, served_versions, skew
from mainspring.model_registry.registry import Registry
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME
from mainspring.serving.features import FeatureReader, feature_schema
from mainspring.spec.versions import feature_versions
from mainspring.storage.event_log import EventLog
from mainspring.storage.key_value import KeyValue
from mainspring.storage.prediction_log import Prediction, PredictionColumns, PredictionLog, PredictionWriter
from mainspring.storage.stores import open_key_value
from mainspring.storage.tables import Tables

T = parse_instant("2025-03-01T12:00:00Z")
FACTOR = {"by": 2.0}

paid = ms.Source("paid", {"id": str, "at": datetime, "card": str, "amount": float}, event_time="at", event_id="id")
asked = ms.Source("asked", {"id": str, "asked_at": datetime, "card": str, "amount": float}, event_time="asked_at", event_id="id")
card = paid.per("card")


@ms.feature
def above(amount, card__amount_mean_1h):  # type: ignore[no-untyped-def]
    return amount - card__amount_mean_1h


@ms.feature
def scaled(amount):  # type: ignore[no-untyped-def]
    return amount * FACTOR["by"]


def declared(*features: Any) -> ms.System:
    return ms.System("s", "?", asked, features, ms.Label(paid, "amount", on="id", matures_after="1d"), ms.LightGBM())


SYSTEM = declared(card.count("1h"), card.mean("amount", "1h"), card.last("amount", max_age="30m"), above, scaled)


class World:
    """A log, an online store that follows it when told to, and a prediction log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log, self.tables = EventLog(path / "log", fsync=False), Tables(path / "tables")
        self.store: KeyValue = open_key_value(f"lmdb:{path}/online")
        self.asked = 0

    def pay(self, *events: tuple[int, float], known: int | None = None, key: str = "c") -> None:
        times = [T + minute * MINUTE for minute, _ in events]
        ids = [f"p{self.log.end + i}" for i in range(len(events))]
        known_times = times if known is None else [T + known * MINUTE] * len(events)
        columns = {"id": ids, "at": times, "card": [key] * len(events), "amount": [amount for _, amount in events]}
        columns |= {EVENT_ID: ids, EVENT_TIME: times, KNOWN_TIME: known_times}
        self.log.append("paid", pa.RecordBatch.from_pydict(columns))

    def apply(self, system: ms.System = SYSTEM) -> None:
        OnlineStore(system, self.store).apply(self.log)

    def answer(self, minute: int = 0, system: ms.System = SYSTEM, amount: float = 10.0, store: Any = None, key: str = "c") -> None:
        self.asked += 1
        row = {"id": f"a{self.asked}", "asked_at": T + minute * MINUTE, "card": key, "amount": amount}
        read = FeatureReader(system, OnlineStore(system, store or self.store)).read(row)
        writer = PredictionWriter(self.path / "predictions", PredictionColumns(system.request.columns, feature_schema(system)))
        rest = {"version": "", "variant": "champion", "answered_by": "model", "score": 0.0, "low": None, "high": None, "reasons": ()}
        rest |= {"latency_us": 0.0, "shadow_version": "", "shadow_score": None}
        request = tuple(row[name] for name in system.request.columns.names)
        writer.append(Prediction(row["id"], row["asked_at"], 0, request, read.values, read.statuses, system.hash, **rest))
        writer.close()

    def offline(self, system: ms.System = SYSTEM) -> OfflineStore:
        self.tables.catch_up(self.log)
        return OfflineStore(system, self.tables.files, threads=1)

    def skew(self, system: ms.System = SYSTEM, registry: Registry | None = None) -> Skew:
        versions = None if registry is None else served_versions(registry, "s")
        return skew(system, PredictionLog(self.path / "predictions").read()[0], self.offline(system), versions)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def causes(found: Skew) -> dict[str, Cause]:
    assert all(len(counts) == 1 for counts in found.causes.values())
    return {name: next(iter(counts)) for name, counts in found.causes.items()}


def test_what_agrees_has_no_cause(world: World) -> None:
    world.pay((-20, 4.0), (-10, 6.0))
    world.apply()
    world.answer()
    found = world.skew()
    assert (found.requests, found.values, found.differences, found.unavailable, found.examined) == (1, 5, 0, 0, 0)
    assert not found.causes
    assert not found.examples


def test_an_event_that_was_not_applied_is_a_late_event_and_reaches_the_functions(world: World) -> None:
    world.pay((-20, 4.0))
    world.apply()
    world.pay((-10, 6.0), (-5, 8.0))
    world.answer()
    found = world.skew()
    assert causes(found) == dict.fromkeys(["card__count_1h", "card__amount_mean_1h", "card__amount_last", "above"], Cause.LATE_EVENT)
    assert found.differing == dict.fromkeys(["card__count_1h", "card__amount_mean_1h", "card__amount_last", "above"], 1)
    note = "the last 2 facts of 'paid' in the log had not been applied"
    assert found.examples[0] == Difference("card__count_1h", Cause.LATE_EVENT, "a1", T, 1, 3, note)
    assert found.examples[-1].note == "by its input card__amount_mean_1h"


def test_an_event_counted_before_it_was_known_is_a_late_event(world: World) -> None:
    world.pay((-20, 4.0), known=-20)
    world.apply()
    world.answer()
    kept = PredictionLog(world.path / "predictions").read()[0]
    after = World(world.path / "after")
    after.pay((-20, 4.0), known=30)
    found = skew(SYSTEM, kept, after.offline())
    after.store.close()
    assert set(causes(found).values()) == {Cause.LATE_EVENT}
    assert "known only after" in found.examples[0].note


def test_an_old_row_that_served_expired_is_not_merely_late(world: World) -> None:
    world.pay((-50, 4.0))
    world.apply()
    world.pay((-10, 6.0))
    world.answer()
    found = causes(world.skew())
    assert found["card__amount_last"] == Cause.EXPIRED
    assert found["card__count_1h"] == Cause.LATE_EVENT


def test_a_fresh_value_served_that_is_expired_now_is_the_reverse(world: World) -> None:
    world.pay((-50, 4.0))
    other = World(world.path / "other")
    other.pay((-50, 4.0), (-10, 6.0))
    other.apply()
    world.answer(store=other.store)
    other.store.close()
    difference = next(one for one in world.skew().examples if one.feature == "card__amount_last")
    assert (difference.cause, difference.served, difference.recomputed) == (Cause.EXPIRED, 6.0, None)
    assert difference.note == "older than 30m when recomputed, not when served"


def test_another_definition_is_a_version_by_what_the_registry_recorded(world: World) -> None:
    before = declared(card.count("1h", name="visits"), card.mean("amount", "1h"))
    after = declared(card.count("2h", name="visits"), card.mean("amount", "1h"))
    registry = Registry(world.path / "registry")
    versions = feature_versions(before.features, before.request)
    registry.register("system", "s", {"hash": before.hash, "features": versions}, at=0)
    world.pay((-90, 4.0), (-10, 6.0))
    world.apply(before)
    world.answer(system=before)
    found = world.skew(after, registry)
    registry.close()
    assert causes(found) == {"visits": Cause.VERSION}
    assert versions["visits"] in found.examples[0].note


def test_versions_are_found_in_models_too(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.register("model", "s", {"system": "h", "features": {"a": "1"}}, at=0)
    registry.register("system", "s", {"hash": "h"}, at=0)
    assert served_versions(registry, "s") == {"h": {"a": "1"}}
    registry.close()


def test_a_changed_function_is_code(world: World) -> None:
    def doubled(amount: Any) -> Any:
        return amount * 2

    def tripled(amount: Any) -> Any:
        return amount * 3

    before, after = (declared(card.count("1h"), ms.feature(name="times")(one)) for one in (doubled, tripled))
    registry = Registry(world.path / "registry")
    registry.register("system", "s", {"hash": before.hash, "features": feature_versions(before.features, before.request)}, at=0)
    world.answer(system=before)
    found = world.skew(after, registry)
    registry.close()
    assert causes(found) == {"times": Cause.CODE}
    assert found.examples[0].note == "its code has changed"


def test_a_function_whose_helper_changed_is_code_though_its_version_is_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.answer()
    monkeypatch.setitem(FACTOR, "by", 3.0)
    found = world.skew()
    assert causes(found) == {"scaled": Cause.CODE}
    assert "something that it calls" in found.examples[0].note


def test_defaults_are_unavailable_and_no_differences(world: World) -> None:
    world.pay((-20, 4.0))
    world.apply()
    key, row = next((key, row) for key, row in world.store.scan(b"") if key.endswith(b"c"))
    with world.store.transaction() as transaction:
        transaction.put(key, row[:-1] + b"?")
    world.answer()
    found = world.skew()
    assert set(causes(found).values()) == {Cause.UNAVAILABLE}
    assert (found.differences, found.unavailable, found.values) == (0, 4, 1)


def test_a_value_of_no_state_of_the_log_is_unexplained(world: World) -> None:
    other = World(world.path / "other")
    other.pay((-20, 99.0))
    other.apply()
    world.pay((-20, 4.0))
    world.answer(store=other.store)
    other.store.close()
    found = causes(world.skew())
    assert found["card__amount_mean_1h"] == Cause.UNEXPLAINED


def test_one_state_must_explain_all_that_a_view_served(world: World) -> None:
    other = World(world.path / "other")
    other.pay((-20, 99.0))
    other.apply()
    world.pay((-20, 4.0), (-10, 6.0))
    world.answer(store=other.store)
    other.store.close()
    assert causes(world.skew())["card__count_1h"] == Cause.UNEXPLAINED, "one fact is a state of the log, but not with that mean"


def test_examples_are_few_and_counts_complete(world: World) -> None:
    world.pay((-50, 1.0))
    world.apply()
    world.pay((-40, 2.0))
    for minute in range(-30, -10):
        world.answer(minute)
    found = world.skew()
    assert found.differing["card__count_1h"] == 20
    assert found.causes["card__count_1h"] == {Cause.LATE_EVENT: 20}
    assert len([one for one in found.examples if one.feature == "card__count_1h"]) == 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-90, -1), st.floats(-100, 100)), min_size=1, max_size=12), st.data())
def test_whatever_prefix_of_the_log_was_applied_is_recognised(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, float]], data: st.DataObject
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    for event in events:
        world.pay(event)
    OnlineStore(SYSTEM, world.store).apply(world.log, until=data.draw(st.integers(0, len(events) - 1)))
    world.answer()
    found = world.skew()
    world.store.close()
    assert {cause for counts in found.causes.values() for cause in counts} <= {Cause.LATE_EVENT, Cause.EXPIRED}


def test_hindsight_says_which_features_late_facts_would_flatter(world: World) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 10, 60)
    for i, amount in enumerate(truth):
        world.pay((-10, float(amount)), known=20, key=f"k{i}")
        world.pay((-40, float(rng.normal(50, 10))), key=f"k{i}")
    ids = [f"p{2 * i}" for i in range(60)]
    keys = [f"k{i}" for i in range(60)]
    questions = pa.table({"id": ids, "asked_at": [T] * 60, "card": keys, "amount": [0.0] * 60, AS_OF: pa.array([T] * 60, pa.int64())})
    system = declared(card.count("1h"), card.last("amount"), scaled)
    found = hindsight(system, questions, world.offline(system), known_until=T + DAY)
    assert found.rows == 60
    assert set(found.features) == {"card__count_1h", "card__amount_last"}
    last = found.features["card__amount_last"]
    assert last.differing == 60
    assert last.as_known is not None
    assert last.as_known < 0.5
    assert last.in_hindsight == pytest.approx(1.0)
