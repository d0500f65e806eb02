"""A training is done again from its record, to the bit; what has changed is named."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from delivery import NOW, build, system, tables
from mainspring.clock import DAY
from mainspring.errors import TrainingError
from mainspring.ingestion.ingest import Ingestor
from mainspring.ingestion.quarantine import Quarantine
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry.registry import Registry
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder
from mainspring.training.reproduce import reproduce
from mainspring.training.tracking.runs import Run
from mainspring.training.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with four runs: a training, one on shuffled labels, an older one, and one that goes on from it."""
    space = build(tmp_path_factory.mktemp("reproduce") / "space")
    registry, tracker = Registry(space.registry), Tracker(space.runs)
    retrainer = Retrainer(system, registry, DatasetBuilder(system, Tables(space.tables)), "test", 1, tracker)
    retrainer.train(retrainer.dataset(NOW), NOW, note="first")
    retrainer.train(retrainer.dataset(NOW), NOW, shuffle_labels=np.random.default_rng(5))
    old, _ = retrainer.train(retrainer.dataset(NOW - 10 * DAY), NOW - 10 * DAY)
    for action in ("shadow", "promote"):
        registry.decide(system.name, action, old.id, at=NOW, by="test", reason="test", evidence={"despite": "test"})
    retrainer.system = dataclasses.replace(system, model=dataclasses.replace(system.model, retrain="incremental"))
    retrainer.train(retrainer.dataset(NOW), NOW)
    tracker.close()
    registry.close()
    return space


@pytest.fixture
def tracker(space: Workspace) -> Iterator[Tracker]:
    tracker = Tracker(space.runs)
    yield tracker
    tracker.close()


def runs(tracker: Tracker) -> list[Run]:
    return tracker.runs("delivery")


def test_every_training_is_recorded(space: Workspace, tracker: Tracker) -> None:
    first, second, *_ = runs(tracker)
    registry = Registry(space.registry)
    version = registry.version(first.notes["version"])
    registry.close()
    assert first.status == second.status == "finished"
    assert first.notes["note"] == "first"
    assert first.artifacts == version.artifacts
    assert first.metrics["validation/mae"] == version.manifest["metrics"]["mae"]
    assert first.parameters["trees"] == system.model.trees
    assert first.seed == system.model.seed
    assert second.metrics["validation/mae"] > 2 * first.metrics["validation/mae"]


def test_the_same_bits_come_again(space: Workspace, tracker: Tracker) -> None:
    shutil.rmtree(space.datasets)
    for run in runs(tracker):
        again = reproduce(tracker, run, Tables(space.tables))
        assert again.same, again.artifacts
        assert set(again.artifacts) == {"model.txt", "model.json", "baselines.json", "system.json"}
        assert again.differences == {}


def test_a_run_that_went_on_holds_what_it_went_on_from(tracker: Tracker) -> None:
    *_, old, further = runs(tracker)
    assert further.parameters["start"]["version"] == old.notes["version"]
    assert further.artifacts["start/model.txt"] == old.artifacts["model.txt"] != further.artifacts["model.txt"]


def test_changed_data_is_detected_and_named(space: Workspace, tracker: Tracker, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "copy")
    shutil.copytree(space.path, other.path)
    log = EventLog(other.events)
    ingestor = Ingestor(log, {one.name: one for one in (system.request, *system.sources)}, Quarantine(other.quarantine))
    for name in ("drives", "done"):
        late = {**tables()[name].slice(0, 200).to_pydict(), "drive": [f"late{i}" for i in range(200)]}
        ingestor.ingest(name, pa.table(late), at=NOW - 1)
    Tables(other.tables).catch_up(log)
    again = reproduce(tracker, runs(tracker)[0], Tables(other.tables))
    assert "data.sources.done.content" in again.differences
    then, now = again.differences["data.sources.done.rows"]
    assert now == then + 200
    assert not again.same
    assert not any(name.startswith(("environment", "code", "data.sources.depots")) for name in again.differences)


def test_only_a_finished_training_can_be_done_again(space: Workspace, tracker: Tracker) -> None:
    with tracker.start("delivery") as run:
        pass
    with pytest.raises(TrainingError, match="is finished and cannot be done again"):
        reproduce(tracker, tracker.run(run.id), Tables(space.tables))
    with tracker.start("delivery", parameters={"made_from": "model:delivery:1"}) as run:
        pass
    with pytest.raises(TrainingError, match="made model:delivery:1 smaller and is no training"):
        reproduce(tracker, tracker.run(run.id), Tables(space.tables))
