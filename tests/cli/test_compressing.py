import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from delivery import build
from mainspring.cli import main
from mainspring.cli.systems import WORK


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compressing")
    build(folder / WORK / "delivery")
    return folder


def test_a_version_is_compressed_and_one_that_loses_too_much_is_refused(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)

    def ask(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["models", *arguments])
        assert done.exit_code == code, done.output
        return done.stdout

    prune = ("compress", "delivery", "champion", "--step", "prune:share=0.5", "--metric", "mae")
    told = json.loads(ask(*prune, "--most-lost", "0.5", "--json"))
    assert (told["version"], told["made_from"], told["passed"]) == ("model:delivery:2", "model:delivery:1", True)
    assert told["table"]["smaller"] > 1.5
    assert told["table"]["loss"]["most"] == 0.5
    text = ask(*prune, "--most-lost", "1e-9", code=9)
    assert "times better" in text
    assert "Registered model:delivery:3, made from model:delivery:1. It is refused." in text
    assert "Next: mainspring rollout delivery --shadow 4" in ask(*prune, "--most-lost", "0.5")
    runs = CliRunner().invoke(main, ["runs", "list", "delivery"]).stdout.splitlines()
    assert [run.split()[-1] for run in runs] == ["model:delivery:2", "model:delivery:3", "model:delivery:4"]
    assert all("finished" in run and "smaller" in run for run in runs)
    assert json.loads(ask("show", "delivery", "2", "--json"))["made_from"] == "model:delivery:1"
    history = ask("history", "delivery")
    assert history.count("gate_refused") == 1
    assert "Did you mean 'prune'" in CliRunner().invoke(main, ["models", *prune[:4], "prume", "--metric", "mae", "--most-lost", "1"]).output
