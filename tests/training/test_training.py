"""Data sets, splits, the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from delivery import NOW, build, system
from mainspring.clock import DAY, HOUR
from mainspring.errors import TrainingError
from mainspring.evaluation.evaluate import Held, evaluate
from mainspring.evaluation.gate import judge
from mainspring.evaluation.measuring import Answers
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry.registry import Registry
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.train import fit, split


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("training") / "space")


@pytest.fixture(scope="module")
def dataset(space: Workspace) -> Dataset:
    return DatasetBuilder(system, Tables(space.tables)).build(None, NOW)


def test_a_set_built_in_steps_is_the_set_built_at_once(space: Workspace, dataset: Dataset, tmp_path: Path) -> None:
    builder = DatasetBuilder(system, Tables(space.tables), tmp_path)
    for now in (NOW - 20 * DAY, NOW - 5 * DAY - 7, NOW - DAY):
        builder.build(None, now)
    stepwise = builder.build(None, NOW)
    assert np.array_equal(stepwise.label, dataset.label)
    for name, values in dataset.columns.items():
        if values.dtype == np.float64:
            assert stepwise.columns[name] == pytest.approx(values, rel=1e-9, nan_ok=True), name
        else:
            assert stepwise.columns[name].tolist() == values.tolist(), name
    assert DatasetBuilder(system, Tables(space.tables)).build(None, NOW).hash == dataset.hash


def test_the_hash_follows_values_and_definition(dataset: Dataset) -> None:
    changed = dataclasses.replace(dataset, label=np.where(np.arange(len(dataset)) == 3, 0.0, dataset.label))
    other = dataclasses.replace(dataset, manifest={**dataset.manifest, "until": 0})
    assert len({dataset.hash, changed.hash, other.hash}) == 3


def test_labels_count_only_when_they_are_known(space: Workspace) -> None:
    now = NOW - 10 * DAY
    early = DatasetBuilder(system, Tables(space.tables)).build(None, now)
    assert (early.label_known_at <= now).all()
    assert (early.as_of < now).all()


def test_nothing_of_the_holdout_leaks_into_training(dataset: Dataset) -> None:
    earlier, holdout = split(system, dataset)
    cut = NOW - 7 * DAY
    assert (earlier.label_known_at < cut).all()
    assert (holdout.as_of >= cut).all()
    straddling = ((dataset.as_of < cut) & (dataset.label_known_at >= cut)).sum()
    assert straddling > 0
    assert len(earlier) + len(holdout) + straddling == len(dataset)


def test_too_few_rows_are_refused_with_the_mend(dataset: Dataset, space: Workspace) -> None:
    with pytest.raises(TrainingError, match=r"training rows, 200 are needed.*holdout"):
        split(system, dataset.where(dataset.as_of > NOW - 7 * DAY - HOUR))
    with pytest.raises(TrainingError, match="Ingest more history"):
        DatasetBuilder(system, Tables(space.tables)).build(None, 0)


def test_training_again_gives_the_same_bits(dataset: Dataset) -> None:
    first, second = fit(system, dataset, threads=1), fit(system, dataset, threads=1)
    assert first.model.to_artifacts() == second.model.to_artifacts()


@pytest.fixture
def retrainer(tmp_path: Path) -> Iterator[Retrainer]:
    space = build(tmp_path / "space")
    registry = Registry(space.registry)
    yield Retrainer(system, registry, DatasetBuilder(system, Tables(space.tables)), "test", threads=1)
    registry.close()


def test_shuffled_labels_are_refused_and_recorded(retrainer: Retrainer) -> None:
    version, gate = retrainer.train(retrainer.dataset(NOW), NOW, shuffle_labels=np.random.default_rng(0))
    assert not gate.passed
    assert "x line" in gate.reason
    decision = retrainer.registry.decisions("delivery")[-1]
    assert (decision.action, decision.version, decision.by) == ("gate_refused", version.id, "gate")
    assert retrainer.registry.deployment("delivery").champion == "model:delivery:1"


def test_a_version_says_what_it_was_made_of(retrainer: Retrainer) -> None:
    version, _ = retrainer.train(retrainer.dataset(NOW), NOW)
    manifest = version.manifest
    assert manifest["features"] == system.feature_hashes
    assert manifest["code"] == "test"
    assert retrainer.registry.version(manifest["dataset"]).manifest["rows"] > 3_000
    assert set(version.artifacts) == {"model.txt", "model.json", "baselines.json", "system.json", "evaluation.json", "card.md"}


def gate(worse_by: float, champion: bool = True) -> bool:
    rng = np.random.default_rng(0)
    truth = rng.normal(100, 20, 6_000)
    as_of = np.sort(rng.integers(0, 14 * DAY, 6_000))
    noise = rng.normal(0, 10, 6_000)
    rivals = {"flat": np.full(6_000, 100.0)} | ({"champion": truth + noise} if champion else {})
    evaluation = evaluate("regression", Held(truth, as_of), Answers(truth + noise * (1 + worse_by)), rivals)
    return judge(evaluation, margin=0.02).passed


@pytest.mark.parametrize(("worse_by", "passed"), [(-0.1, True), (0.0, True), (0.015, True), (0.03, False), (0.5, False), (2.0, False)])
def test_the_gate_lets_nothing_worse_than_the_margin_through(worse_by: float, passed: bool) -> None:
    assert gate(worse_by) is passed


def test_without_a_champion_the_rules_are_the_rivals() -> None:
    assert gate(0.5, champion=False)
    assert not gate(2.0, champion=False)
