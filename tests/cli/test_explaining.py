import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from delivery import NOW, build
from mainspring.cli import main
from mainspring.cli.systems import WORK
from mainspring.clock import HOUR
from mainspring.gateway.backend import opened

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one version that has answered a request, and one by its rule for want of the kilometres."""
    folder = tmp_path_factory.mktemp("explaining")
    space = build(folder / WORK / "delivery")
    with opened(space, stream=True) as backend:
        row = {"drive": "new", "sent_at": NOW + 20 * HOUR, "depot": "north", "km": 30.0}
        backend.answer(row, request_id="evening", explain=False)
        backend.answer({**row, "km": None}, request_id="unknown", explain=False)
    return folder


@pytest.fixture
def ask(world: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What a command prints; its exit code must be as given."""
    monkeypatch.chdir(world)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.stdout if code == 0 else done.output

    return run


def test_a_version_is_explained_by_its_features(ask: Ask) -> None:
    told = json.loads(ask("models", "explain", "delivery", "--feature", "km", "--json"))
    assert told["version"] == "model:delivery:1"
    assert [one["name"] for one in told["contributions"]][:2] == ["km", "hour"]
    assert told["shuffled"][0]["name"] == "km"
    assert told["shuffled"][0]["low"] > 0
    partial = told["followed"]["km"]["partial_dependence"]
    assert partial[-1]["effect"] - partial[0]["effect"] == pytest.approx(39 * 2.3, rel=0.1)
    lines = ask("models", "explain", "delivery", "1", "--rows", "200").splitlines()
    assert lines[0].startswith("model:delivery:1 on 200 rows held back")
    assert lines[-1] == "Next: mainspring models explain delivery --feature km"


def test_what_cannot_be_followed_is_named(ask: Ask) -> None:
    text = ask("models", "explain", "delivery", "--feature", "depot", "--rows", "300")
    assert "depot: mean minutes with each value" in text
    assert "'sent_at' is no input of the model and cannot be changed by itself" in ask(
        "models", "explain", "delivery", "--feature", "sent_at", code=2
    )
    assert "there is no feature 'kms'. Did you mean 'km'?" in ask("models", "explain", "delivery", "--feature", "kms", code=2)


def test_a_page_with_plots_is_written(ask: Ask, world: Path) -> None:
    assert "Wrote page.html." in ask("models", "explain", "delivery", "--rows", "300", "--html", "page.html")
    page = (world / "page.html").read_text()
    assert page.count("<svg") == 2 + 2 * 6
    assert page.count("<h2>") == 2 + 6 + 1
    assert not re.search(r"(src|href)=.https?:", page)


def test_what_would_have_changed_an_answer(ask: Ask) -> None:
    found = json.loads(ask("models", "counterfactual", "delivery", "evening", "--below", "60", "--json"))
    assert found["answered"] == found["predicted"][0] > 80
    assert found["found"][0]["changes"][0]["feature"] == "km"
    for one in found["found"]:
        assert one["predicted"][0] < 60
        assert not {change["feature"] for change in one["changes"]} & {"hour", "sent_at", "depot", "drive"}
    text = ask("models", "counterfactual", "delivery", "evening", "--below", "60", "--fix", "km", code=9)
    assert "changed rows gets there" in text
    assert "It is there as it is." in ask("models", "counterfactual", "delivery", "evening", "--above", "20")


def test_requests_that_cannot_be_explained_are_named(ask: Ask) -> None:
    assert "has no answer with the request id 'nobody'" in ask("models", "counterfactual", "delivery", "nobody", "--below", "60", code=4)
    assert "give one of below, above and to" in ask("models", "counterfactual", "delivery", "evening", code=2)
    assert "no feature 'kms'. Did you mean 'km'?" in ask(
        "models", "counterfactual", "delivery", "evening", "--below", "1", "--fix", "kms", code=2
    )
