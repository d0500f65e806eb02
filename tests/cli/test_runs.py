"""The ``runs`` verb on a workspace with two trainings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from delivery import NOW, build, system
from mainspring.cli import main
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry.registry import Registry
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder
from mainspring.training.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    space = build(tmp_path_factory.mktemp("runs") / "space")
    registry, tracker = Registry(space.registry), Tracker(space.runs)
    retrainer = Retrainer(system, registry, DatasetBuilder(system, Tables(space.tables)), "test", 1, tracker)
    for note in ("one", "two"):
        retrainer.train(retrainer.dataset(NOW), NOW, note=note)
    tracker.close()
    registry.close()
    return space


def invoke(space: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["runs", arguments[0], "delivery", *arguments[1:], "--workspace", str(space.path)])


def listed(space: Workspace) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(invoke(space, "list", "--json").output)
    return found


def test_runs_are_listed_and_shown(space: Workspace) -> None:
    first, _ = listed(space)
    assert first["status"] == "finished"
    assert f"{first['id']}  " in invoke(space, "list").output
    assert f"validation/mae {first['metrics']['validation/mae']:.5g}" in invoke(space, "list").output
    shown = json.loads(invoke(space, "show", first["id"][:6], "--json").output)
    assert shown["environment"]["packages"]["numpy"]
    assert first["data"]["hash"] in invoke(space, "show", first["id"]).output


def test_only_what_tells_runs_apart_is_shown(space: Workspace) -> None:
    ids = [run["id"] for run in listed(space)]
    apart = json.loads(invoke(space, "compare", *ids, "--json").output)["differences"]
    assert apart["notes.note"] == ["one", "two"]
    assert not any(name.startswith(("parameters", "data", "code", "environment")) for name in apart)
    assert "notes.note" in invoke(space, "compare", *ids).output


def test_a_run_is_done_again(space: Workspace, tmp_path: Path) -> None:
    id = listed(space)[0]["id"]
    done = invoke(space, "reproduce", id)
    assert done.exit_code == 0, done.output
    assert "Reproduced to the bit" in done.output
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(space.path, copy.path)
    for blob in (copy.runs / "blobs").glob("*/*"):
        blob.write_bytes(blob.read_bytes() + b" ")
    refused = invoke(copy, "reproduce", id)
    assert refused.exit_code == 4
    assert "was altered" in refused.output


def test_a_workspace_without_runs_says_so(tmp_path: Path) -> None:
    done = invoke(Workspace(tmp_path), "list")
    assert done.exit_code == 4
    assert "holds no runs" in done.output


def test_runs_are_compared_on_a_page(space: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tracker = Tracker(space.runs)
    with tracker.start("<b>", seed=1) as run:
        for step in range(5):
            run.step(step, {"train/loss": 1.0 / (step + 1)})
    tracker.close()
    done = invoke(space, "compare", "--html", str(tmp_path / "runs.html"))
    assert done.exit_code == 0, done.output
    page = (tmp_path / "runs.html").read_text()
    assert page.count("<svg") == 1
    assert "train/loss" in page
    assert "&lt;b&gt;" in page
    assert "<script" not in page
    assert "<link" not in page
    for one in listed(space):
        assert one["id"] in page
