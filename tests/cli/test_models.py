import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from delivery import build
from mainspring.cli import main
from mainspring.cli.systems import WORK

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three versions, each promoted."""
    folder = tmp_path_factory.mktemp("models")
    build(folder / WORK / "delivery", versions=3)
    return folder


@pytest.fixture
def ask(world: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What a command prints; its exit code must be as given."""
    monkeypatch.chdir(world)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.output

    return run


def test_what_training_registered_is_listed_and_shown(ask: Ask) -> None:
    rows = json.loads(ask("models", "list", "delivery", "--json"))
    assert [row["state"] for row in rows] == ["", "previous", "champion"]
    assert ask("models", "list", "delivery").count("MAE") == 3
    shown = json.loads(ask("models", "show", "delivery", "champion", "--json"))
    assert (shown["id"], shown["signed"], shown["dataset"]) == ("model:delivery:3", False, "dataset:delivery:3")
    assert shown["schema"]["label"] == {"minutes": "float"}
    assert shown["schema"]["request"]["km"] == "float?"
    assert 0 < shown["latency"]["p50"] <= shown["latency"]["p99"]
    assert shown["environment"]["lightgbm"]
    assert shown["seed"] == shown["parameters"]["seed"]


def test_versions_are_compared(ask: Ask) -> None:
    found = json.loads(ask("models", "diff", "delivery", "1", "champion", "--json"))
    assert (found["first"], found["second"], found["features"]) == ("model:delivery:1", "model:delivery:3", {})
    assert found["dataset"]["id"] == ["dataset:delivery:1", "dataset:delivery:3"]
    assert ask("models", "diff", "delivery", "1", "3").startswith("model:delivery:1 -> model:delivery:3\n")
    assert "nothing is called 'champoin'. Did you mean 'champion'?" in ask("models", "diff", "delivery", "1", "champoin", code=5)


def test_aliases_are_moved_listed_and_taken_away(ask: Ask) -> None:
    ask("models", "alias", "delivery", "last-good", "1", "--reason", "calm")
    assert json.loads(ask("models", "alias", "delivery", "--json")) == {"last-good": "model:delivery:1"}
    assert json.loads(ask("models", "show", "delivery", "last-good", "--json"))["id"] == "model:delivery:1"
    assert "last-good: calm" in ask("models", "history", "delivery")
    assert json.loads(ask("models", "history", "delivery", "--json").splitlines()[0])["manifest"]["hash"]
    assert "last-good" in ask("models", "list", "delivery")
    ask("models", "alias", "delivery", "last-good", "--remove")
    assert json.loads(ask("models", "alias", "delivery", "--json")) == {}
    ask("models", "alias", "delivery", "last-good", code=2)


def test_altered_bytes_are_found_and_named(ask: Ask, world: Path) -> None:
    assert ask("models", "verify", "delivery").count("good") == 7
    digest = json.loads(ask("models", "show", "delivery", "2", "--json"))["artifacts"]["model.txt"]
    file = world / WORK / "delivery" / "registry" / "blobs" / digest[:2] / digest
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert "altered" in ask("models", "verify", "delivery", "2", code=9)
    file.write_bytes(whole)


def test_the_rollout_goes_back_while_there_is_what_to_go_back_to_and_pruning_says_what_goes(ask: Ask) -> None:
    told = json.loads(ask("rollout", "delivery", "--back", "--to", "1", "--reason", "complaints", "--json"))
    assert (told["action"], told["evidence"], told["reason"]) == ("roll_back", {"to": "model:delivery:1"}, "complaints")
    assert json.loads(ask("models", "show", "delivery", "champion", "--json"))["id"] == "model:delivery:1"
    assert "no previous champion" in ask("rollout", "delivery", "--back", code=5)
    ask("rollout", "delivery", "--to", "1", code=2)
    ask("rollout", "delivery", "--back", "--to", "3")
    assert "Would drop artifacts of 2 versions" in ask("models", "prune", "delivery", "--keep", "1", "--dry-run")
    assert json.loads(ask("models", "prune", "delivery", "--keep", "1", "--json")) == ["model:delivery:1", "model:delivery:2"]
    assert ask("models", "list", "delivery").count("artifacts dropped") == 2
    assert "good" in ask("models", "verify", "delivery")
    assert "artifacts were dropped" in ask("rollout", "delivery", "--back", "--to", "1", code=5)
