"""A registered version made smaller: measured, judged, registered, served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mainspring as ms
from delivery import NOW, build, system
from mainspring.clock import DAY
from mainspring.errors import DeclarationError, ExportError, RegistryError, TrainingError
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.serving.features import FeatureRow
from mainspring.serving.versions import load
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.compression import Bound, Compressed, Distil, Prune, Quantize, Step, compress
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.train import fit, register, split

NET = replace(system, model=ms.Net(hidden=(64, 64), epochs=12, batch=256, learning_rate=2e-2, interval=(0.1, 0.9), holdout="7d"))
SMALL_TREES = ms.LightGBM(trees=25, leaves=8, learning_rate=0.3)
WITHIN = Bound("mae", 0.5)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("compression") / "space")


@pytest.fixture
def registry(space: Workspace) -> Iterator[Registry]:
    opened = Registry(space.registry)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def dataset(space: Workspace) -> Dataset:
    return DatasetBuilder(system, Tables(space.tables)).build(None, NOW)


@pytest.fixture(scope="module")
def net(space: Workspace, dataset: Dataset) -> Version:
    """A net registered beside the trees of the workspace."""
    opened = Registry(space.registry)
    version = register(NET, opened, fit(NET, dataset, threads=1), at=NOW, metrics={}, code="test")
    opened.close()
    return version


def made(space: Workspace, registry: Registry, version: Version, *steps: Step, bound: Bound = WITHIN) -> Compressed:
    return compress(registry, Tables(space.tables), version, steps, bound, at=NOW, code="test", timed=20)


def trees(registry: Registry) -> Version:
    return registry.version("model:delivery:1")


def test_a_smaller_version_is_registered_with_what_it_was_made_from_and_its_table(space: Workspace, registry: Registry) -> None:
    done = made(space, registry, trees(registry), Prune(0.5))
    assert done.passed
    assert done.table.smaller > 1.5
    manifest = ModelManifest.of(registry.version(done.version.id))
    assert manifest.made_from == "model:delivery:1"
    assert manifest.compression["steps"] == [{"step": "Prune", "share": 0.5, "structured": False, "rounds": 4, "epochs": 3}]
    assert manifest.compression["table"]["loss"] == {**done.table.to_dict()["loss"]}
    assert manifest.features == dict(trees(registry).manifest["features"])
    assert manifest.dataset == trees(registry).manifest["dataset"]
    assert manifest.metrics["mae"] == done.table.compressed.value
    assert manifest.bytes == sum(len(registry.artifact(done.version, name)) for name in done.version.artifacts)
    decision = registry.decisions("delivery")[-1]
    assert (decision.action, decision.version, decision.by) == ("gate_passed", done.version.id, "gate")
    assert decision.evidence["smaller"] == done.table.smaller
    assert [line.split()[0] for line in done.table.lines()] == ["KB", "original", "compressed", "times", "mae"]


def test_a_compression_is_a_run_that_names_its_version(space: Workspace, registry: Registry, net: Version, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "runs")
    steps, bound = (Prune(0.5, structured=True, rounds=2, epochs=1), Quantize("static")), Bound("mae", 1e-9)
    done = compress(registry, Tables(space.tables), net, steps, bound, at=NOW, code="test", timed=20, tracker=tracker)
    (run,) = tracker.runs("delivery")
    assert (run.status, run.notes["version"], run.seed) == ("finished", done.version.id, net.manifest["seed"])
    assert run.parameters["made_from"] == net.id
    assert run.parameters["bound"] == {"metric": "mae", "most": 1e-9, "alert_rate": None}
    assert run.parameters["steps"] == done.version.manifest["compression"]["steps"]
    assert run.data["hash"] == registry.version(net.manifest["dataset"]).manifest["hash"]
    assert run.artifacts == done.version.artifacts
    assert run.metrics["smaller"] == done.table.smaller
    assert run.metrics["validation/mae"] == run.metrics["compressed/value"] == done.table.compressed.value
    assert run.notes["gate"] == f"refused: {done.reason}"
    curves = tracker.curves(run)
    assert curves["bytes"].step.tolist() == [1, 2]
    assert curves["bytes"].value[1] == done.table.compressed.bytes < curves["bytes"].value[0] < done.table.original.bytes
    with pytest.raises(TrainingError, match="cannot be pruned"):
        compress(registry, Tables(space.tables), net, (Quantize(), Prune()), bound, at=NOW, code="test", timed=20, tracker=tracker)
    assert tracker.runs("delivery")[-1].status == "failed"
    tracker.close()


def test_what_loses_more_than_declared_is_registered_as_refused_and_goes_no_further(space: Workspace, registry: Registry) -> None:
    done = made(space, registry, trees(registry), Prune(0.97), bound=Bound("mae", 0.05))
    assert not done.passed
    assert done.table.loss.lost > 0.05
    assert registry.decisions("delivery")[-1].action == "gate_refused"
    assert "must stay below 0.05" in registry.decisions("delivery")[-1].reason
    registry.version(done.version.id)
    with pytest.raises(TrainingError, match="was itself made from model:delivery:1"):
        made(space, registry, done.version, Prune(0.1))
    registry.decide("delivery", "gate_refused", "model:delivery:1", at=NOW, by="gate", reason="test")
    with pytest.raises(TrainingError, match="refused by the gate"):
        made(space, registry, trees(registry), Prune(0.1))
    registry.decide("delivery", "gate_passed", "model:delivery:1", at=NOW, by="gate", reason="test")


def test_the_gate_looks_at_the_upper_end_of_the_interval(space: Workspace, registry: Registry) -> None:
    done = made(space, registry, trees(registry), Prune(0.5))
    loss = done.table.loss
    assert loss.low is not None
    assert loss.high is not None
    assert loss.low < loss.lost < loss.high
    between = Bound("mae", (max(loss.lost, 0.0) + loss.high) / 2)
    assert not made(space, registry, trees(registry), Prune(0.5), bound=between).passed


@pytest.mark.parametrize(
    ("step", "of"),
    [
        (Distil(SMALL_TREES), "trees"),
        (Distil(ms.Linear(), truth=0.5), "trees"),
        (Distil(SMALL_TREES), "net"),
        (Prune(0.5, structured=True), "net"),
        (Prune(0.5), "net"),
        (Quantize("dynamic"), "net"),
        (Quantize("static"), "net"),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_what_was_made_serves_with_the_recorded_features(
    space: Workspace, registry: Registry, dataset: Dataset, net: Version, step: Step, of: str
) -> None:
    declared, version = (system, trees(registry)) if of == "trees" else (NET, net)
    done = made(space, registry, version, step, bound=Bound("mae", 20.0))
    loaded = load(declared, registry, done.version.id)
    assert loaded.model is not None, loaded.problem
    held_out = split(declared, dataset).test
    names = [feature.name for feature in declared.features]
    row = [held_out.columns[name][5] for name in names]
    values = [None if value != value else value for value in row]
    answer, low, high = loaded.predict([FeatureRow(values, bytes(len(names)))])[0]  # type: ignore[arg-type]
    assert answer == loaded.model.predict(held_out.columns)[5]
    assert low is not None
    assert high is not None
    assert low < answer < high
    assert loaded.rule("line", [FeatureRow(values, bytes(len(names)))])[0][0] > 0  # type: ignore[arg-type]
    inside = np.mean([(lo <= y) & (y <= hi) for (lo, hi), y in zip(_intervals(loaded.model, held_out), held_out.label, strict=True)])
    assert inside == pytest.approx(0.8, abs=0.06)


def _intervals(model: object, rows: Dataset) -> list[tuple[float, float]]:
    low, high = model.interval.apply(model.predict(rows.columns))  # type: ignore[attr-defined]
    return list(zip(low, high, strict=True))


def test_a_net_without_half_of_its_neurons_is_a_smaller_net(space: Workspace, registry: Registry, net: Version) -> None:
    done = made(space, registry, net, Prune(0.5, structured=True))
    assert done.passed
    assert done.table.compressed.bytes < done.table.original.bytes
    weights = [len(registry.artifact(one, "net.safetensors")) for one in (net, done.version)]
    assert weights[1] < 0.45 * weights[0]


def test_a_quantized_net_is_a_quarter_of_its_size(space: Workspace, registry: Registry, net: Version) -> None:
    for how in ("dynamic", "static"):
        done = made(space, registry, net, Quantize(how))  # type: ignore[arg-type]
        assert done.passed, done.reason
        assert ModelManifest.of(done.version).compression["steps"] == [{"step": "Quantize", "how": how}]
        files = [
            sum(len(registry.artifact(one, name)) for name in names)
            for one, names in ((net, ("net.safetensors", "net.json")), (done.version, ("model.onnx",)))
        ]
        assert files[1] < files[0] / 3
    with pytest.raises(ExportError, match="Only a net can be quantized"):
        made(space, registry, trees(registry), Quantize())


def test_a_pruned_net_can_be_quantized(space: Workspace, registry: Registry, net: Version) -> None:
    done = made(space, registry, net, Prune(0.5, structured=True), Quantize())
    assert done.passed, done.reason
    with pytest.raises(TrainingError, match="kind 'onnx' cannot be pruned"):
        made(space, registry, net, Quantize(), Prune())


def test_steps_are_done_in_turn(space: Workspace, registry: Registry, net: Version) -> None:
    student = Distil(ms.Net(hidden=(32,), epochs=12, batch=256, learning_rate=2e-2), beside=("1",))
    done = made(space, registry, net, student, Prune(0.5, structured=True), bound=Bound("mae", 20.0))
    body = ModelManifest.of(done.version)
    assert [one["step"] for one in body.compression["steps"]] == ["Distil", "Prune"]
    assert body.compression["steps"][0]["into"]["model"] == "Net"
    assert body.parameters["hidden"] == [32]
    assert body.parameters["holdout"] == "7d"


def test_a_teacher_beside_another_teaches_better_than_a_bad_one_alone(space: Workspace, registry: Registry, net: Version) -> None:
    """The student of both lies nearer to the trees, which are better than the net."""
    alone, both = (made(space, registry, net, Distil(SMALL_TREES, beside=beside)) for beside in ((), ("1",)))
    assert both.table.compressed.value < alone.table.compressed.value


def test_a_teacher_with_other_features_is_refused(space: Workspace, registry: Registry) -> None:
    body = {**trees(registry).manifest, "features": {}}
    other = registry.register("model", "delivery", body, {}, at=NOW)
    with pytest.raises(RegistryError, match="other definitions of features"):
        made(space, registry, trees(registry), Distil(SMALL_TREES, beside=(other.id,)))


def test_a_teacher_that_knows_what_judges_is_refused(space: Workspace, registry: Registry) -> None:
    earlier = DatasetBuilder(system, Tables(space.tables)).build(None, NOW - 3 * DAY)
    older = register(system, registry, fit(system, earlier, threads=1), at=NOW, metrics={}, code="test")
    with pytest.raises(TrainingError, match="trained on newer rows"):
        made(space, registry, older, Distil(SMALL_TREES, beside=("1",)))
    assert made(space, registry, trees(registry), Distil(SMALL_TREES, beside=(older.id,))).table.loss.rows > 0


def test_the_same_call_gives_the_same_bits(space: Workspace, registry: Registry, net: Version) -> None:
    for step in (Prune(0.5, structured=True, rounds=2, epochs=1), Prune(0.5, rounds=2, epochs=1), Distil(SMALL_TREES), Quantize("static")):
        first, second = (made(space, registry, net, step).version for _ in range(2))
        assert first.artifacts == second.artifacts
        assert first.manifest["metrics"] == second.manifest["metrics"]


def test_tampered_files_are_refused(space: Workspace, registry: Registry, net: Version) -> None:
    done = made(space, registry, net, Prune(0.5, rounds=1, epochs=1))
    digest = done.version.artifacts["net.safetensors"]
    file = Path(space.registry) / "blobs" / digest[:2] / digest
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    loaded = load(NET, registry, done.version.id)
    assert loaded.model is None
    assert "altered" in loaded.problem
    with pytest.raises(TrainingError, match="itself made from"):
        made(space, registry, done.version, Prune())
    file.write_bytes(whole)


def test_a_data_set_that_changed_is_not_taken_for_the_one_of_the_training(tmp_path: Path) -> None:
    space = build(tmp_path / "space")
    registry = Registry(space.registry)
    recorded = registry.version("dataset:delivery:1").manifest
    forged = registry.register("dataset", "delivery", {**recorded, "until": recorded["until"] - 1}, at=NOW)
    version = trees(registry)
    body = {**version.manifest, "dataset": forged.id}
    other = registry.register("model", "delivery", body, {name: registry.artifact(version, name) for name in version.artifacts}, at=NOW)
    with pytest.raises(TrainingError, match="can no longer be built"):
        made(space, registry, other, Prune())
    registry.close()


def test_what_does_not_fit_is_refused_before_anything_is_made(space: Workspace, registry: Registry) -> None:
    before = len(registry.versions("model", "delivery"))
    with pytest.raises(DeclarationError, match="0 steps"):
        made(space, registry, trees(registry))
    with pytest.raises(DeclarationError, match="'brier' is for binary"):
        made(space, registry, trees(registry), Prune(), bound=Bound("brier", 0.1))
    with pytest.raises(DeclarationError, match="the student's task is binary, the teacher's regression"):
        made(space, registry, trees(registry), Distil(ms.LightGBM(objective="binary")))
    with pytest.raises(RegistryError, match="nothing is called 'nobody'"):
        made(space, registry, trees(registry), Distil(SMALL_TREES, beside=("nobody",)))
    assert len(registry.versions("model", "delivery")) == before
