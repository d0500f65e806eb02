import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from delivery import build, system
from mainspring.cli import main
from mainspring.cli.systems import WORK


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a run of one version, which is live."""
    build(tmp_path / WORK / "delivery")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mainspring.cli.systems.find_system", lambda _: SimpleNamespace(system=system))


@pytest.mark.usefixtures("world")
def test_a_version_is_trained_judged_and_put_in_shadow() -> None:
    done = CliRunner().invoke(main, ["train", "delivery", "--threads", "1", "--shadow", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["version"], told["passed"], told["stage"], told["retrained"]) == ("model:delivery:2", True, "shadow", "full")
    listed = CliRunner().invoke(main, ["models", "list", "delivery"]).output
    assert "challenger (shadow)" in listed
    runs = json.loads(CliRunner().invoke(main, ["runs", "list", "delivery", "--json"]).output)
    assert runs[-1]["notes"]["version"] == "model:delivery:2"


@pytest.mark.usefixtures("world")
def test_nothing_new_is_fitted_anew_and_said_so() -> None:
    done = CliRunner().invoke(main, ["train", "delivery", "--retrain", "incremental", "--threads", "1", "--at", "2025-02-10T00:00:00Z"])
    assert done.exit_code == 0, done.output
    assert "was fitted to" in done.output
    assert "Taken was full (full MAE" in done.output
    assert "that are new, 200 are needed" in done.output
    assert done.output.rstrip().endswith("Next: mainspring models show delivery 2")


@pytest.mark.usefixtures("world")
def test_too_early_an_instant_is_refused() -> None:
    done = CliRunner().invoke(main, ["train", "delivery", "--at", "2024-01-01"])
    assert done.exit_code == 6
    assert "Ingest more history" in done.output
