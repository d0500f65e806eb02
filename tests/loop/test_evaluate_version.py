"""What is registered with a version, and a version evaluated again, by the verbs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import chargebacks
import pytest
from click.testing import CliRunner

import mainspring as ms
from mainspring.cli import main
from mainspring.cli.systems import WORK
from mainspring.design.card import card_of
from mainspring.design.card_html import html
from mainspring.errors import RegistryError
from mainspring.evaluation.card import markdown
from mainspring.evaluation.record import Evaluation
from mainspring.loop.evaluate import evaluate_version
from mainspring.model_registry.registry import Registry
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs: one whose promises are out of reach, and one whose promises hold."""
    folder = tmp_path_factory.mktemp("evaluate")
    chargebacks.build(folder / WORK / "chargebacks")
    held = ms.Requirements(quality=[ms.at_least("roc_auc", 1.05, of="line"), ms.at_least("recall", 0.1, at_alert_rate=0.05)])
    chargebacks.build(folder / "held", dataclasses.replace(chargebacks.system, requirements=held))
    return folder


@pytest.fixture
def space(world: Path) -> Workspace:
    return Workspace(world / WORK / "chargebacks")


@pytest.fixture
def registry(space: Workspace) -> Iterator[Registry]:
    registry = Registry(space.registry)
    yield registry
    registry.close()


@pytest.fixture
def ask(world: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What a command prints on standard output; its exit code must be as given."""
    monkeypatch.chdir(world)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.stdout if code in (0, 1) else done.output

    return run


def test_a_version_carries_its_evaluation_and_its_card(registry: Registry) -> None:
    version = registry.resolve("chargebacks", "2")
    stored = Evaluation.from_json(registry.artifact(version, "evaluation.json"))
    assert version.manifest["metrics"] == json.loads(json.dumps(stored.figures()))
    assert [one.rival for one in stored.against] == ["line", "champion"]
    assert stored.slices[0].name == "country = FR"
    assert stored.latency["p50"] > 0
    assert {one.name for one in stored.inputs} == {feature.name for feature in chargebacks.system.inputs}
    assert version.manifest["card"] == "card.md"
    card = registry.artifact(version, "card.md").decode()
    assert "the one that this card is stored with" in card
    assert "payments team" in card


def test_the_gate_refuses_what_is_shown_to_miss_a_promise(registry: Registry) -> None:
    decision = next(one for one in registry.decisions("chargebacks") if one.version == "model:chargebacks:2")
    assert decision.action == "gate_refused"
    assert "average_precision >= 0.99 is missed" in decision.reason


def test_the_holdout_gives_the_figures_that_were_registered(space: Workspace, registry: Registry) -> None:
    version = registry.resolve("chargebacks", "2")
    stored = Evaluation.from_json(registry.artifact(version, "evaluation.json"))
    champion = registry.resolve("chargebacks", "champion")
    again = evaluate_version(chargebacks.system, registry, Tables(space.tables), version, against=champion)
    assert again.measures == stored.measures
    assert again.promises == stored.promises
    assert again.against[1] == dataclasses.replace(stored.against[1], rival="model:chargebacks:1")
    assert again.split == stored.split


def test_two_versions_are_compared_on_rows_that_neither_was_fitted_on(space: Workspace, registry: Registry) -> None:
    first, second = (registry.resolve("chargebacks", number) for number in "12")
    later = evaluate_version(chargebacks.system, registry, Tables(space.tables), second)
    swapped = evaluate_version(chargebacks.system, registry, Tables(space.tables), first, against=second)
    assert (swapped.since, swapped.until, swapped.rows) == (later.since, later.until, later.rows)
    own = evaluate_version(chargebacks.system, registry, Tables(space.tables), first)
    assert own.until < later.until


def test_rows_that_came_since_are_none_of_the_training_set(space: Workspace, registry: Registry) -> None:
    first = registry.resolve("chargebacks", "1")
    found = evaluate_version(chargebacks.system, registry, Tables(space.tables), first, newest=True)
    assert found.since >= chargebacks.NOW - 10 * chargebacks.DAY
    assert found.split["kind"].startswith("rows after 2025-02-20")


def test_the_verb_prints_the_table_and_exits_with_1_where_a_promise_is_missed(ask: Ask) -> None:
    text = ask("evaluate", "chargebacks", "2", "--against", "champion", code=1)
    for part in ("recall at alert_rate 0.05", "average_precision >= 0.99", "missed", "country = FR", "model:chargebacks:1", "models card"):
        assert part in text
    body = json.loads(ask("evaluate", "chargebacks", "2", "--json", code=1))
    assert body["promises"][3]["verdict"] == "missed"
    assert "met" in ask("evaluate", "chargebacks", "2", "--workspace", "held")
    assert "labelled rows after" in ask("evaluate", "chargebacks", "2", "--newest", code=6)
    assert "no version 'model:chargebacks:9'" in ask("evaluate", "chargebacks", "9", code=5)


def test_a_card_is_written_from_the_records(ask: Ask, world: Path) -> None:
    text = ask("models", "card", "chargebacks", "2")
    for part in ("# Model card: model:chargebacks:2", "gate refused", "| country |", "## Limits", "mainspring runs reproduce chargebacks"):
        assert part in text
    assert "](" not in text
    told = ask("models", "card", "chargebacks", "2", "--html", "card.html", "--markdown", "card.md")
    assert told.count("Wrote") == 2
    assert (world / "card.md").read_text() == text
    page = (world / "card.html").read_text()
    assert page.count("<figure>") == 5
    for reference in ("src=", "<link", "<script", "@import"):
        assert reference not in page


def test_every_row_of_a_table_has_the_cells_of_its_head(registry: Registry, space: Workspace) -> None:
    text = markdown(card_of(registry, space, registry.resolve("chargebacks", "2")))
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1, block


def test_what_the_records_do_not_hold_is_said_to_be_missing(registry: Registry, space: Workspace) -> None:
    whole = card_of(registry, space, registry.resolve("chargebacks", "2"))
    bare = dataclasses.replace(whole, evaluation=None, run="", dataset={}, system=dataclasses.replace(whole.system, owner=""))
    for text in (markdown(bare), html(bare)):
        for part in ("No evaluation is stored", "The training set is not recorded", "not declared", "not given", "No owner is declared."):
            assert part in text
    assert "<figure>" not in html(bare)


def test_what_a_card_is_given_is_escaped(registry: Registry, space: Workspace) -> None:
    whole = card_of(registry, space, registry.resolve("chargebacks", "2"))
    rude = dataclasses.replace(whole, system=dataclasses.replace(whole.system, question="<b>a | b</b>"))
    assert "<b>a" not in html(rude)
    assert "a \\| b" in markdown(rude)


def test_a_version_that_names_no_data_set_is_refused(space: Workspace, registry: Registry) -> None:
    odd = dataclasses.replace(registry.resolve("chargebacks", "2"), manifest={})
    with pytest.raises(RegistryError, match="names no data set"):
        evaluate_version(chargebacks.system, registry, Tables(space.tables), odd)
