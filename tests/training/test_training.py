"""Data sets, splits, the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mainspring as ms
from delivery import NOW, build, system
from mainspring.clock import DAY, HOUR
from mainspring.errors import TrainingError
from mainspring.evaluation.evaluate import Held, evaluate
from mainspring.evaluation.gate import judge
from mainspring.evaluation.measuring import Answers
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry import Version
from mainspring.model_registry.deployment import Decision
from mainspring.model_registry.registry import Registry
from mainspring.models.tabular import TabularModel
from mainspring.serving.versions import load
from mainspring.spec import System
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.train import fit, split, to_artifacts


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
    sides = split(system, dataset)
    cut = NOW - 7 * DAY
    assert (sides.train.label_known_at < cut).all()
    assert (sides.test.as_of >= cut).all()
    straddling = ((dataset.as_of < cut) & (dataset.label_known_at >= cut)).sum()
    assert straddling > 0
    assert len(sides.train) + len(sides.test) + straddling == len(dataset)


def test_what_judges_is_apart_where_it_is_declared_so(space: Workspace) -> None:
    declared = dataclasses.replace(system, model=dataclasses.replace(system.model, split=ms.TimeSplit("5d", test="4d", gap="1d")))
    assert ms.System.from_json(declared.to_json()) == declared
    built, plain = (DatasetBuilder(one, Tables(space.tables)).build(None, NOW) for one in (declared, system))
    assert built.hash != plain.hash
    assert built.manifest["split"] == {"split": "TimeSplit", "validation": "5d", "test": "4d", "gap": "1d", "window": None}
    sides = split(declared, built)
    assert sides.train.label_known_at.max() < sides.validation.as_of.min()
    assert sides.validation.label_known_at.max() < sides.test.as_of.min()
    trained = fit(declared, built, threads=1)
    assert np.array_equal(trained.holdout.as_of, sides.test.as_of)


def test_groups_stay_together(dataset: Dataset) -> None:
    declared = dataclasses.replace(system.model, split=ms.GroupSplit(0.3, 0.3, seed=7), group="depot")
    sides = split(dataclasses.replace(system, model=declared), dataset)
    depots = [set(side.columns["depot"].tolist()) for side in (sides.train, sides.validation, sides.test)]
    assert all(depots)
    assert not depots[0] & depots[1] | depots[0] & depots[2] | depots[1] & depots[2]


def test_too_few_rows_are_refused_with_the_mend(dataset: Dataset, space: Workspace) -> None:
    with pytest.raises(TrainingError, match=r"training rows, 200 are needed.*holdout"):
        split(system, dataset.take(dataset.as_of > NOW - 7 * DAY - HOUR))
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


def promote(retrainer: Retrainer, version: Version) -> None:
    for action in ("shadow", "promote"):
        retrainer.registry.decide("delivery", action, version.id, at=NOW, by="test", reason="test", evidence={"despite": "test"})


def again(retrainer: Retrainer, retrain: str, at: int, **changed: object) -> tuple[Version, Decision]:
    """A later retraining of this kind, with the decision that says which way was taken."""
    retrainer.system = dataclasses.replace(system, model=dataclasses.replace(system.model, retrain=retrain, **changed))
    retrainer.builder = DatasetBuilder(retrainer.system, retrainer.builder.tables)
    version, _ = retrainer.train(retrainer.dataset(at), at)
    return version, [one for one in retrainer.registry.decisions("delivery") if one.action == "retrained"][-1]


def test_going_on_adds_to_the_champion_what_is_new(retrainer: Retrainer) -> None:
    old, _ = retrainer.train(retrainer.dataset(NOW - 10 * DAY), NOW - 10 * DAY)
    promote(retrainer, old)
    version, decision = again(retrainer, "incremental", NOW)
    assert (version.manifest["start"], decision.version) == (old.id, version.id)
    assert decision.reason.startswith("incremental (incremental mae")
    trees = [int(retrainer.registry.artifact(one, "model.txt").count(b"Tree=")) for one in (old, version)]
    assert trees == [60, 66]
    whole = split(retrainer.system, retrainer.dataset(NOW)).train
    before = split(retrainer.system, retrainer.dataset(NOW - 10 * DAY)).train
    assert version.manifest["rows"] == len(whole) - len(before) > 500


def test_of_both_ways_the_better_is_taken_and_the_comparison_recorded(retrainer: Retrainer) -> None:
    count = len(retrainer.registry.versions("model", "delivery"))
    version, decision = again(retrainer, "both", NOW)
    assert len(retrainer.registry.versions("model", "delivery")) == count + 1
    assert decision.reason.endswith("hold out less: LightGBM(holdout=...).")
    assert "0 training rows that are new" in decision.reason
    old, _ = retrainer.train(retrainer.dataset(NOW - 10 * DAY), NOW - 10 * DAY)
    promote(retrainer, old)
    version, decision = again(retrainer, "both", NOW)
    losses = {way: one["loss"]["value"] for way, one in decision.evidence.items()}
    assert losses.keys() == {"full", "incremental"}
    assert decision.evidence[min(losses, key=losses.__getitem__)]["version"] == version.id == decision.version
    assert len(retrainer.registry.versions("model", "delivery")) == count + 4


def test_what_cannot_be_gone_on_from_is_fitted_anew(retrainer: Retrainer) -> None:
    version, decision = again(retrainer, "incremental", NOW, offset="km")
    assert version.manifest["start"] == ""
    assert "cannot be compared" not in decision.reason
    assert decision.reason.startswith("full (full mae")


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


def test_an_interval_by_quantiles_goes_through_gate_registry_and_loading(space: Workspace, dataset: Dataset, tmp_path: Path) -> None:
    declared = dataclasses.replace(system, model=dataclasses.replace(system.model, interval_by="quantiles"))
    assert System.from_json(declared.to_json()).hash == declared.hash != system.hash
    registry = Registry(tmp_path / "registry")
    retrainer = Retrainer(declared, registry, DatasetBuilder(declared, Tables(space.tables)), "test", threads=1)
    version, gate = retrainer.train(dataset, NOW)
    assert gate.metrics["coverage"] == pytest.approx(0.8, abs=0.03)
    assert {"model.txt", "low.model.txt", "high.model.txt"} <= set(version.artifacts)
    loaded = load(declared, registry, version.id).model
    assert loaded is not None
    held_out = split(declared, dataset).test
    score, low, high = loaded.predict_bounds(held_out.columns)
    assert low is not None
    assert high is not None
    assert (low <= score).all()
    assert (score <= high).all()
    row = [held_out.columns[name].tolist()[0] for name in loaded.encoder.names]
    assert loaded.predict_row(row) == (score[0], low[0], high[0])
    registry.close()


def test_a_system_of_two_classes_may_have_sets(dataset: Dataset) -> None:
    model = ms.LightGBM(objective="binary", trees=30, leaves=8, holdout="7d", sets=0.9, calibration="isotonic")
    declared = dataclasses.replace(system, model=model, requirements=ms.Requirements())
    assert System.from_json(declared.to_json()).hash == declared.hash
    late = dataclasses.replace(dataset, label=(dataset.label > 60).astype(float))
    trained = fit(declared, late, threads=1)
    again = TabularModel.from_artifacts(to_artifacts(declared, trained))
    inside = again.predict_sets(trained.holdout.columns)
    assert inside[np.arange(len(inside)), trained.holdout.label.astype(int)].mean() >= 0.85
