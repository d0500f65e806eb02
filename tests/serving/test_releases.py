"""A deployment is taken up whole: at once where it is in memory, else when it has been loaded; and what fails is left out for a while."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import mainspring as ms
from delivery import NOW, build, system
from mainspring.breaker import Breaker
from mainspring.model_registry.records import Version
from mainspring.model_registry.registry import Registry
from mainspring.serving.features import FeatureRow
from mainspring.serving.releases import STALE_SECONDS, Releases
from mainspring.serving.versions import FAILURES, LoadedVersion, load
from mainspring.storage.workspace import Workspace

ROWS = [FeatureRow(("north", km, 12.0, 30.0, 1, 1.0), bytes(6)) for km in (1.0, 5.0, 20.0)]


class SlowRegistry:
    """A registry whose artifacts can be held back."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.flowing = threading.Event()
        self.flowing.set()
        self.tables = None
        self.token, self.deployment, self.version = registry.token, registry.deployment, registry.version

    def artifact(self, version: Version, name: str) -> bytes:
        assert self.flowing.wait(20)
        return self._registry.artifact(version, name)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("releases") / "space", versions=3)


@pytest.fixture
def registry(three: Workspace) -> Iterator[Registry]:
    registry = Registry(three.registry)
    registry.decide("delivery", "roll_back", at=NOW, by="test", reason="test", evidence={"to": "model:delivery:1"}) if (
        registry.deployment("delivery").champion != "model:delivery:1"
    ) else None
    yield registry
    until(lambda: all(thread.name != "releases" for thread in threading.enumerate()))
    registry.close()


def decide(registry: Registry, *moves: tuple[str, str]) -> None:
    for action, version in moves:
        registry.decide("delivery", action, version, at=NOW, by="test", reason="test")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def champion(releases: Releases) -> str | None:
    return releases.current().deployment.champion


def test_a_version_that_has_to_be_loaded_is_live_when_it_is_and_not_before(registry: Registry) -> None:
    slow = SlowRegistry(registry)
    releases = Releases(system, slow)  # type: ignore[arg-type]
    slow.flowing.clear()
    decide(registry, ("shadow", "model:delivery:2"), ("promote", "model:delivery:2"))
    for _ in range(50):
        live = releases.current()
        assert live.deployment.champion == "model:delivery:1"
        assert live.versions["model:delivery:1"].model is not None
    slow.flowing.set()
    until(lambda: champion(releases) == "model:delivery:2")
    assert releases.current().versions["model:delivery:2"].model is not None


def test_the_way_back_does_not_wait_for_what_is_being_loaded(registry: Registry) -> None:
    slow = SlowRegistry(registry)
    releases = Releases(system, slow)  # type: ignore[arg-type]
    decide(registry, ("shadow", "model:delivery:2"), ("promote", "model:delivery:2"))
    until(lambda: champion(releases) == "model:delivery:2")
    slow.flowing.clear()
    decide(registry, ("shadow", "model:delivery:3"))
    assert releases.current().deployment.challenger is None
    decide(registry, ("roll_back", "model:delivery:3"), ("roll_back", "model:delivery:2"))
    assert champion(releases) == "model:delivery:1"
    slow.flowing.set()


def test_what_is_not_loaded_in_time_is_live_all_the_same_and_the_one_before_answers(registry: Registry) -> None:
    now = [0.0]
    slow = SlowRegistry(registry)
    releases = Releases(system, slow, lambda: now[0])  # type: ignore[arg-type]
    slow.flowing.clear()
    decide(registry, ("shadow", "model:delivery:2"), ("promote", "model:delivery:2"))
    now[0] = STALE_SECONDS - 1
    assert champion(releases) == "model:delivery:1"
    now[0] = 2 * STALE_SECONDS + 1
    live = releases.current()
    assert live.deployment.champion == "model:delivery:2"
    assert live.answers()
    assert [(name, version.id) for name, version in live.chains["champion"]][:2] == [
        ("model", "model:delivery:2"),
        ("previous", "model:delivery:1"),
    ]
    assert "still being loaded" in str(live.versions["model:delivery:2"].predict(ROWS[:1])[0])
    slow.flowing.set()
    until(lambda: releases.current().versions["model:delivery:2"].model is not None)


def test_one_that_is_not_loaded_gives_way_to_the_one_before_even_where_no_fallback_is_declared(tmp_path: Path) -> None:
    alone = replace(system, policy=ms.Policy(floor=1.0))
    space = build(tmp_path / "space", versions=2, declared=alone)
    registry = Registry(space.registry)
    blobs = registry.version("model:delivery:2").artifacts
    own = set(blobs.values()) - set(registry.version("model:delivery:1").artifacts.values())
    for digest in own:
        file = next(one for one in (space.registry / "blobs").rglob("*") if one.is_file() and digest in str(one).replace("/", ""))
        file.unlink()
    chain = Releases(alone, registry).current().chains["champion"]
    registry.close()
    assert own
    assert [(name, version.id, version.model is None) for name, version in chain] == [
        ("model", "model:delivery:2", True),
        ("previous", "model:delivery:1", False),
    ]


class Model:
    """Takes ``seconds`` of a clock that is moved by hand, or fails."""

    def __init__(self, now: list[float]) -> None:
        self.now, self.seconds, self.fails, self.asked = now, 0.0, False, 0

    def predict_rows(self, rows: list[object]) -> list[tuple[float, None, None]]:
        self.asked += len(rows)
        self.now[0] += self.seconds
        if self.fails:
            raise ValueError("broken")
        return [(1.0, None, None)] * len(rows)


def guarded(now: list[float]) -> tuple[LoadedVersion, Model]:
    model = Model(now)
    breaker = Breaker(lambda: now[0], random.Random(1), FAILURES)
    return LoadedVersion("model:delivery:1", model, {}, lambda values: values, deadline=0.25, breaker=breaker), model  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["late", "failing"])
def test_a_version_that_fails_or_is_late_again_and_again_costs_nothing_for_a_while(how: str) -> None:
    now = [0.0]
    version, model = guarded(now)
    model.seconds, model.fails = (0.3, False) if how == "late" else (0.0, True)
    for _ in range(FAILURES):
        version.predict(ROWS[:1])
    asked = model.asked
    assert all("left out for a while" in str(one) for one in version.predict(ROWS))
    assert model.asked == asked
    now[0] += 0.8
    model.seconds, model.fails = 0.0, False
    probe, *others = version.predict(ROWS)
    assert (probe, model.asked) == ((1.0, None, None), asked + 1), "one row is the probe"
    assert all("left out" in str(one) for one in others)
    assert version.predict(ROWS) == [(1.0, None, None)] * 3


def test_a_row_that_breaks_a_model_between_good_ones_leaves_it_in(three: Workspace) -> None:
    registry = Registry(three.registry)
    version = load(system, registry, "model:delivery:1")
    registry.close()
    bad = FeatureRow(("north", object(), 12.0, 30.0, 1, 1.0), bytes(6))
    for _ in range(FAILURES):
        good, broken, again = version.predict([ROWS[0], bad, ROWS[1]])
        assert isinstance(good, tuple)
        assert isinstance(again, tuple)
        assert "failed" in str(broken)
    assert not version.breaker.open
