"""The whole loop, small: what it must show, and that it can be killed."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from small_run import small_recording, small_run

from mainspring.cli import main
from mainspring.design.draw import svg
from mainspring.design.evidence import build_report
from mainspring.design.report import Report, to_json
from mainspring.design.report_html import html
from mainspring.errors import StorageError
from mainspring.feature_store.online import OnlineStore
from mainspring.gateway.backend import opened
from mainspring.loop.replay import logged_ids
from mainspring.model_registry.registry import Registry
from mainspring.storage.adapters.lmdb import LmdbKeyValue
from mainspring.storage.event_log import EventLog
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace
from mainspring.systems.eta import system

DAYS = 7
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    path = tmp_path_factory.mktemp("run")
    run = small_run(path, DAYS)
    run.execute()
    run.close()
    return Workspace(path)


@pytest.fixture(scope="module")
def report(finished: Workspace) -> Report:
    return build_report(finished)[1]


def test_every_departure_is_answered_once(finished: Workspace, report: Report) -> None:
    recording = small_recording(DAYS)
    trips = recording.tables["trips"]
    departed = trips.column("departed_at").to_numpy()
    expected = set(trips.filter((departed >= recording.history_until) & (departed < recording.end)).column("trip_id").to_pylist())
    answered = PredictionLog(finished.predictions).read()[0].column("request.trip_id").to_pylist()
    assert len(answered) == len(set(answered))
    assert set(answered) == expected
    assert report.requests == len(expected)


def test_no_served_value_differs_from_its_recomputation(report: Report) -> None:
    requests, values, differences = report.skew
    assert requests == report.requests
    assert values > 50 * requests
    assert differences == 0


def test_the_skew_reports_are_printed(finished: Workspace) -> None:
    def ask(*arguments: str) -> tuple[int, Any]:
        done = CliRunner().invoke(main, ["features", "skew", "eta", "--workspace", str(finished.path), "--json", *arguments])
        assert done.exit_code in (0, 9), done.exception
        return done.exit_code, json.loads(done.output)

    code, found = ask()
    assert (code, found["differences"], found["causes"]) == (0, 0, {})
    code, found = ask("--training", "--rows", "5000")
    assert found["rows"] == 5000
    assert code == (9 if found["features"] else 0)


def test_an_event_that_comes_after_the_answers_shows_as_a_late_event(finished: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(finished.path, tmp_path / "copy"))
    log, since = EventLog(copy.events), small_recording(DAYS).history_until
    frames = [frame.batch for frame in log.read() if frame.source == "arrivals"]
    late = next(batch for batch in frames if batch.column("_known_time").to_numpy().min() > since)
    ids = pa.array([f"{one}-late" for one in late.column("_event_id").to_pylist()])
    log.append("arrivals", late.set_column(late.schema.get_field_index("_event_id"), "_event_id", ids))
    done = CliRunner().invoke(main, ["features", "skew", "eta", "--workspace", str(copy.path)])
    assert done.exit_code == 9
    assert "late event" in done.output
    assert "facts of 'arrivals' in the log had not been applied" in done.output
    assert "unexplained" not in done.output
    assert "Next, late event: events reach the log too late" in done.output
    done = CliRunner().invoke(main, ["features", "skew", "eta", "--workspace", str(copy.path), "--json"])
    assert {cause for counts in json.loads(done.output)["causes"].values() for cause in counts} == {"late event"}


def test_a_retrained_version_is_promoted_step_by_step(report: Report) -> None:
    kinds = [(moment.kind, moment.version) for moment in report.moments]
    promoted = [version for kind, version in kinds if kind == "promote"]
    assert len(promoted) >= 2
    last = promoted[-1]
    assert [kind for kind, version in kinds if version == last] == ["gate_passed", "shadow", "canary", "canary", "promote"]


def test_the_model_on_shuffled_labels_is_refused_and_then_rolled_back(report: Report) -> None:
    drill = next(moment.version for moment in report.moments if moment.kind == "drill")
    story = [moment.kind for moment in report.moments if moment.version == drill]
    assert story == ["gate_refused", "drill", "shadow", "canary", "roll_back"]


def test_requirements_have_verdicts_with_evidence(report: Report) -> None:
    assert {verdict.verdict for verdict in report.verdicts} <= {"met", "missed"}
    for verdict in report.verdicts:
        assert verdict.n > 0
        assert verdict.machine
        assert verdict.commit


def test_evidence_of_another_declaration_is_stale(finished: Workspace) -> None:
    declared = small_run(finished.path, DAYS).system
    assert "stale" not in {verdict.verdict for verdict in build_report(finished, declared)[1].verdicts}
    changed = dataclasses.replace(declared, question="How long?")
    assert {verdict.verdict for verdict in build_report(finished, changed)[1].verdicts} == {"stale"}


def test_what_was_live_is_a_query(finished: Workspace) -> None:
    registry = Registry(finished.registry)
    decisions = registry.decisions("eta")
    promotions = [one for one in decisions if one.action == "promote"]
    assert registry.deployment("eta", promotions[0].at - 1).champion is None
    assert registry.deployment("eta", promotions[0].at).champion == promotions[0].version
    assert registry.deployment("eta").champion == promotions[-1].version
    registry.close()


def test_the_online_store_is_rebuilt_from_the_log(finished: Workspace, tmp_path: Path) -> None:
    log = EventLog(finished.events)
    old, new = LmdbKeyValue(finished.online), LmdbKeyValue(tmp_path / "again")
    first, second = OnlineStore(system, old), OnlineStore(system, new)
    second.apply(log)
    assert first.offset == second.offset == log.end
    table = PredictionLog(finished.predictions).read()[0].slice(0, 200)
    for row in table.to_pylist():
        request = {name: row[f"request.{name}"] for name in system.request.columns.names}
        late = row["as_of"] + 10 * 86_400_000_000
        assert first.read(request, late).values == pytest.approx(second.read(request, late).values, nan_ok=True)
    old.close()
    new.close()


def test_the_report_opens_offline(report: Report) -> None:
    text = html(report, svg(system))
    assert text.count("<svg") >= 5
    assert not [part for part in text.split('src="')[1:] if part.startswith("http")]
    assert "<link" not in text
    assert json.loads(to_json(report))["requests"] == report.requests


def test_a_finished_run_started_again_changes_nothing(finished: Workspace) -> None:
    before = EventLog(finished.events).end, len(PredictionLog(finished.predictions).read()[0])
    run = small_run(finished.path, DAYS)
    run.execute()
    run.close()
    assert (EventLog(finished.events).end, len(PredictionLog(finished.predictions).read()[0])) == before


def test_what_the_model_corrects_being_null_a_rule_answers_and_the_answer_says_why(finished: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(finished.path, tmp_path / "copy"))
    row = PredictionLog(finished.predictions).read()[0].slice(0, 1).to_pylist()[0]
    request = {name: row[f"request.{name}"] for name in system.request.columns.names}
    with opened(copy, stream=False) as backend:
        full = backend.answer(request, request_id="full", explain=False)
        partial = backend.answer({**request, "planned_minutes": None}, request_id="partial", explain=True)
        vague = backend.answer({**request, "carrier": None, "departure_delay": None}, request_id="vague", explain=False)
    assert (full.answered_by, full.because) == ("model", None)
    assert (partial.answered_by, partial.interval) == ("distance_rule", None)
    assert "'planned_minutes' is null" in str(partial.because)
    assert abs(partial.prediction / full.prediction - 1) < 0.5
    assert vague.answered_by == "model"
    assert abs(vague.prediction / full.prediction - 1) < 0.2


def test_a_workspace_holds_one_declaration_and_one_recording(finished: Workspace) -> None:
    run = small_run(finished.path, DAYS)
    run.recording = dataclasses.replace(run.recording, name="taxi")
    with pytest.raises(StorageError, match="holds a run of system 'eta' on recording 'flights'"):
        run.execute()
    run.close()


def test_answers_become_parquet(finished: Workspace) -> None:
    rows = sum(pq.read_metadata(file).num_rows for file in finished.predictions.glob("*.parquet"))
    assert rows == len(PredictionLog(finished.predictions).read()[0])


def test_the_online_store_in_shards_and_the_event_log_may_be_on_a_server(redis_url: str, tmp_path: Path) -> None:
    Workspace(tmp_path).keep_online_at(f"{redis_url}?shards=2")
    Workspace(tmp_path).keep_events_at(f"{redis_url}#{tmp_path}")
    run = small_run(tmp_path, 1)
    run.execute()
    run.close()
    report = build_report(Workspace(tmp_path))[1]
    assert report.requests > 500
    assert report.skew[2] == 0
    assert dict(report.answered_by) == {"model": report.requests}
    assert not Workspace(tmp_path).online.exists()
    assert not Workspace(tmp_path).events.exists()


@pytest.mark.parametrize("seed", range(2))
def test_killed_anywhere_it_goes_on_and_loses_nothing(tmp_path: Path, seed: int) -> None:
    dice, days = random.Random(seed), 2
    stages = ["ingest history", "materialise online store", "build training set", "replay", "replay"]
    for stage in [dice.choice(stages[:3]), *stages[3:]]:
        _run_until(tmp_path, days, stage, dice.randint(1, 3))
    child = subprocess.run(
        [sys.executable, str(HERE / "small_run.py"), str(tmp_path), str(days)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr[-2000:]
    recording, space = small_recording(days), Workspace(tmp_path)
    answered = PredictionLog(space.predictions).read()[0].column("request.trip_id").to_pylist()
    departed = recording.tables["trips"].column("departed_at").to_numpy()
    asked = recording.tables["trips"].filter((departed >= recording.history_until) & (departed < recording.end))
    assert sorted(answered) == sorted(asked.column("trip_id").to_pylist())
    for source, ids in logged_ids(EventLog(space.events)).items():
        assert len(ids) == len(ids.unique()), source
    assert build_report(space)[1].skew[2] == 0


def _run_until(workspace: Path, days: int, stage: str, lines: int) -> None:
    """Start the run as its own process group and kill all of it after some lines of a stage."""
    command = [sys.executable, str(HERE / "small_run.py"), str(workspace), str(days)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(stage):
            lines -= 1
            if lines <= 0:
                break
    os.killpg(child.pid, signal.SIGKILL)
    child.stdout.close()
    child.wait()
