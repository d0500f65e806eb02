"""A registered version written as one file, and an exported one registered and served."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner

from delivery import NOW, build, system
from mainspring.cli import main
from mainspring.cli.systems import WORK
from mainspring.clock import HOUR
from mainspring.gateway.backend import opened
from mainspring.model_registry.registry import Registry
from mainspring.models.adapters.onnx.runtime import OnnxPredictor
from mainspring.models.export import as_onnx
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder
from mainspring.training.train import fit, register

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exporting")
    build(folder / WORK / "delivery", versions=2)
    return folder


@pytest.fixture
def ask(world: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.chdir(world)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.output

    return run


def test_a_version_is_written_as_one_file_with_the_figures_of_its_parity(ask: Ask, world: Path) -> None:
    told: dict[str, Any] = json.loads(ask("export", "delivery", "1", "--target", "onnx", "--out", "one", "--json"))
    file = (world / "one" / "delivery.onnx").read_bytes()
    assert (told["version"], told["kind"], told["files"]) == ("model:delivery:1", "lightgbm", ["delivery.json", "delivery.onnx"])
    assert told["bytes"] > len(file)
    assert set(told["parity"]) == {"given", "thresholds", "missing", "unknown"}
    assert told["parity"]["given"]["rows"] == 2_000
    assert max(part["absolute"] for part in told["parity"].values()) == 0.0
    assert OnnxPredictor(file).names == tuple(told["columns"])
    (note,) = [one.value for one in onnx.load_from_string(file).metadata_props if one.key == "model.json"]
    assert set(json.loads(note)["encoder"]["categories"]["depot"]) == {"north", "south", "west"}


def test_the_champion_is_what_is_written_when_none_is_named(ask: Ask, world: Path) -> None:
    told = ask("export", "delivery", "--out", "champion", "--decide-at", "60")
    assert "Wrote champion/delivery.onnx: model:delivery:2 for onnx" in told
    assert "Next: mainspring models show delivery" in told
    assert "decided otherwise 0.00%" in told


def test_a_file_that_cannot_be_written_and_a_version_that_is_not_there_are_one_line(ask: Ask) -> None:
    assert "nothing is called 'champoin'. Did you mean 'champion'?" in ask("export", "delivery", "champoin", "--out", "x", code=5)
    told = ask("export", "delivery", "--out", "/proc/nowhere", code=4)
    assert "/proc/nowhere cannot be written: No such file or directory" in told
    assert "mainspring export eta" in ask("export", "--help")


def test_an_exported_version_is_registered_and_served_like_any_other(world: Path, ask: Ask) -> None:
    space = Workspace(world / WORK / "delivery")
    registry = Registry(space.registry)
    recorded = registry.versions("dataset", "delivery")[-1].manifest
    trained = fit(system, DatasetBuilder(system, Tables(space.tables)).build(recorded["from"], recorded["until"]), threads=1)
    model, _ = as_onnx(trained.model, trained.model.encoder.transform(trained.holdout.columns))
    version = register(system, registry, replace(trained, model=model), at=NOW, metrics={}, code="test")
    registry.decide("delivery", "shadow", version.id, at=NOW, by="test", reason="test")
    registry.decide("delivery", "promote", version.id, at=NOW, by="test", reason="test")
    registry.close()
    assert "model.onnx" in version.artifacts
    with opened(space, stream=True) as backend:
        row = {"drive": "new", "sent_at": NOW + HOUR, "depot": "north", "km": 10.0}
        answer = backend.answer(row, request_id="r1", explain=True)
    assert (answer.answered_by, answer.version) == ("model", version.id)
    assert answer.interval is not None
    assert answer.reasons[0].feature == "km"
    told: dict[str, Any] = json.loads(ask("export", "delivery", "--out", "again", "--json"))
    assert (told["version"], told["kind"]) == (version.id, "onnx")
    assert max(part["absolute"] for part in told["parity"].values()) == 0.0
