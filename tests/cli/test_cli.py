"""The command line: help, errors in one line with their exit codes, JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from delivery import build
from mainspring.cli import main
from mainspring.cli.systems import WORK, free_workspace
from mainspring.ingestion import Contract
from mainspring.model_registry.registry import Registry
from mainspring.storage.event_log import EventLog
from mainspring.storage.workspace import Workspace
from mainspring.systems.eta import system


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", sorted(main.commands))
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = CliRunner().invoke(main, [verb, "--help"])
    assert done.exit_code == 0
    assert f"mainspring {verb}" in done.output.split("Example:", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "etta"], 2, "no system 'etta'. Did you mean 'eta'?"),
        (["run", "eta", "--source", "taxis"], 2, "no recording 'taxis'. Did you mean 'taxi'?"),
        (["run", "eta", "--source", "taxi"], 3, "give --data"),
        (["run", "eta", "--until", "someday"], 2, "ISO 8601"),
        (["run", "eta", "--until", "2013-10-01"], 3, "the replay begins at 2013-11-01T04:00:00Z. Give a later end"),
        (["run", "eta", "--since", "2013-12-01"], 3, "the replay begins at 2013-11-01T04:00:00Z. Give an earlier start"),
        (["models", "list", "eta"], 4, "mainspring run eta"),
        (["verify", "eta", "--workspace", "nowhere"], 4, "holds no run"),
        (["serve", "eta"], 4, "mainspring run eta"),
        (["draw", "nothing"], 2, "no system 'nothing'"),
        (["dance"], 2, "No such command 'dance'"),
    ],
)
def test_failures_are_one_line_with_a_code(here: Path, arguments: list[str], code: int, said: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code
    assert said in done.output
    assert "Traceback" not in done.output


def test_draw_prints_or_writes(here: Path) -> None:
    assert CliRunner().invoke(main, ["draw", "eta", "--format", "mermaid"]).output.startswith("flowchart TD")
    assert json.loads(CliRunner().invoke(main, ["draw", "eta", "--format", "json"]).output)["format"] == 1
    assert "Wrote eta.svg" in CliRunner().invoke(main, ["draw", "eta"]).output
    assert (here / "eta.svg").read_text().startswith("<svg")


def test_a_run_takes_the_first_workspace_that_is_new_or_an_interrupted_run_of_its_kind(here: Path) -> None:
    other = dataclasses.replace(system, question="How long?")
    for number, (declared, recording, finished) in enumerate(
        [(system, "flights", True), (other, "flights", False), (system, "taxi", False)], 1
    ):
        registry = Registry(here / WORK / ("eta" if number == 1 else f"eta-{number}") / "registry")
        registry.decide("eta", "run_started", at=0, by="loop", reason="", evidence={"system": declared.hash, "recording": recording})
        if finished:
            registry.decide("eta", "run_completed", at=1, by="loop", reason="", evidence={})
        registry.close()
    assert free_workspace(system, "taxi") == WORK / "eta-3"
    assert free_workspace(other, "flights") == WORK / "eta-2"
    assert free_workspace(system, "flights") == WORK / "eta-4"


def test_rollout_shows_decisions_and_what_was_live(here: Path) -> None:
    build(here / WORK / "delivery", versions=2)
    history = CliRunner().invoke(main, ["rollout", "delivery"]).output
    assert history.count("promote") == 2
    state = json.loads(CliRunner().invoke(main, ["rollout", "delivery", "--at", "2025-01-01T00:00:00Z", "--json"]).output)
    assert state["champion"] is None
    assert CliRunner().invoke(main, ["rollout", "delivery", "--at", "noon"]).exit_code == 2


def test_the_catalog_is_printed_searched_and_held_against_models(here: Path) -> None:
    def ask(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["features", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert len(json.loads(ask("list", "eta", "--json"))) == len(system.features)
    assert "Northward component" in ask("search", "eta", "wind north")
    assert json.loads(ask("show", "eta", "trip_km", "--json"))["used_by"][-1] == "baseline distance_rule"
    assert "arrivals.pace" in ask("lineage", "eta", "destination_air")
    registry = Registry(here / "run" / "registry")
    old = {**system.feature_hashes, "wind_north": "0" * 16}
    version = registry.register("model", "eta", {"features": old}, at=0)
    registry.decide("eta", "promote", version.id, at=1, by="loop", reason="", evidence={})
    registry.close()
    done = CliRunner().invoke(main, ["features", "breaks", "eta", "--workspace", str(here / "run")])
    assert (done.exit_code, done.output.split()) == (9, ["model:eta:1", "wind_north", "has", "changed"])
    assert CliRunner().invoke(main, ["features", "show", "eta", "trip"]).exit_code == 2


def test_the_online_store_is_brought_up_to_the_log_and_another_is_filled(here: Path) -> None:
    def told(*arguments: str) -> dict[str, int | str]:
        done = CliRunner().invoke(main, ["features", "materialise", "eta", "--workspace", "run", "--json", *arguments])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    log = EventLog(Workspace(here / "run").events)
    seen = [{"place": f"P{number}", "effective_at": "2013-01-01", "latitude": 40.0, "longitude": -73.0} for number in range(3)]
    (places,) = (source for source in system.sources if source.name == "places")
    batch = Contract(places).check_rows(seen).accepted
    log.append("places", batch)
    assert (told()["from"], told()["to"]) == (0, 3)
    log.append("places", batch)
    assert (told()["from"], told("--online", f"lmdb:{here / 'other'}")["to"]) == (3, 6)
    assert told()["from"] == 6


def test_the_doctor_looks_at_every_package() -> None:
    done = CliRunner().invoke(main, ["doctor", "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        pytest.skip("mainspring is not installed as a package here")
    found = {row["what"] for row in json.loads(done.output)}
    assert {"Python >= 3.11", "duckdb", "extra lightgbm: lightgbm"} <= found
