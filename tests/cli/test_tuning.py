"""The verb that tunes: on a workspace, resumed, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import delivery
import mainspring as ms
from mainspring.cli import main
from mainspring.cli.systems import WORK
from mainspring.storage.workspace import Workspace

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one version."""
    folder = tmp_path_factory.mktemp("tuning")
    delivery.build(folder / WORK / "delivery")
    return folder


@pytest.fixture
def ask(world: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What a command prints on standard output; its exit code must be as given."""
    monkeypatch.chdir(world)
    monkeypatch.setattr("mainspring.cli.systems.find_system", lambda _: delivery)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.output if code else done.stdout

    return run


def test_what_is_found_is_a_line_to_paste_and_every_trial_a_run(ask: Ask, world: Path) -> None:
    told = json.loads(ask("tune", "delivery", "--trials", "6", "--sampler", "random", "--json"))
    assert (told["system"], told["metric"], told["goal"], told["trials"], told["failed"]) == ("delivery", "mae", "minimize", 6, 0)
    assert told["stopped"] > 0
    assert told["steps"] < 6 * 60
    declared, found = (eval(told[name]["line"], {"ms": ms}) for name in ("declared", "found"))
    assert declared == delivery.system.model
    assert (found.trees, found.holdout, found.interval) == (60, "7d", (0.1, 0.9))
    assert told["changed"]["learning_rate"] == [0.2, found.learning_rate]
    assert found.learning_rate == pytest.approx(told["best"]["settings"]["learning_rate"], rel=1e-3)
    assert told["found"]["value"] == pytest.approx(told["best"]["value"], rel=0.02)
    runs = json.loads(ask("runs", "list", "delivery", "--json"))
    (search,) = [run for run in runs if run["name"] == "delivery tuning" and run["parent"] is None]
    assert len([run for run in runs if run["parent"] == search["id"]]) == 6
    assert (Workspace(world / WORK / "delivery").searches / Path(told["folder"]).name / "journal.log").is_file()


def test_the_same_command_goes_on_where_it_stopped(ask: Ask) -> None:
    before = json.loads(ask("tune", "delivery", "--trials", "6", "--sampler", "random", "--json"))
    more = json.loads(ask("tune", "delivery", "--trials", "8", "--sampler", "random", "--workers", "2", "--json"))
    assert more["folder"] == before["folder"]
    assert more["trials"] == 8
    assert more["best"]["value"] <= before["best"]["value"]
    other = json.loads(ask("tune", "delivery", "--trials", "2", "--set", "leaves=4..9", "--pruner", "none", "--json"))
    assert other["folder"] != before["folder"]
    assert set(other["best"]["settings"]) == {"learning_rate", "feature_fraction", "l2", "leaves", "min_leaf_rows"}
    assert other["stopped"] == 0


def test_it_says_what_it_found_where_it_lies_and_what_is_next(ask: Ask) -> None:
    told = ask("tune", "delivery", "--trials", "2", "--set", "trees=3..4", "--set", "learning_rate=0.01", "--metric", "rmse")
    assert "rmse on " in told
    assert "  declared  " in told
    assert "  learning_rate=0.2 -> 0.01" in told
    assert "To paste:\n  model=ms.LightGBM(interval=(0.1, 0.9), holdout='7d', " in told
    assert "Wrote mainspring-work/delivery/searches/" in told
    assert "3 runs" in told
    assert "Next: keep the declaration" in told


def test_what_cannot_be_is_one_line_with_the_mend(ask: Ask, tmp_path: Path) -> None:
    assert "Did you mean 'leaves'" in ask("tune", "delivery", "--set", "leafs=2..9", code=2)
    assert "cannot be tuned for 'mea'. Did you mean 'mae'?" in ask("tune", "delivery", "--metric", "mea", code=2)
    assert "is no address of Ray" in ask("tune", "delivery", "--trials", "1", "--over", "dask", code=2)
    assert "holds no registry" in ask("tune", "delivery", "--workspace", str(tmp_path), code=4)
    assert "cannot hold them" in ask("tune", "delivery", "--sampler", "grid", "--trials", "1", "--set", "l2=0.1|1|3", code=2)
