"""Files in, rows apart, rows back in, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mainspring.cli import main
from mainspring.cli.ingesting import quarantine
from mainspring.storage.event_log import EventLog

ARRIVAL = {"departed_at": "2025-01-01", "timezone": "UTC", "origin": "A", "destination": "B", "arrived_at": "2025-01-01T02:00:00"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"trip_id": f"t{number}", **ARRIVAL, "minutes": minutes} for number, minutes in enumerate([120, 12_000, 9_000])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    return tmp_path


def ask(*arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--workspace", "space"])
    assert "Traceback" not in done.output
    return done


def ids() -> list[str]:
    return [one for frame in EventLog(Path("space/events")).read() for one in frame.batch.column("_event_id").to_pylist()]


def test_a_file_goes_in_and_its_bad_rows_come_back_once_they_are_mended(here: Path) -> None:
    done = ask("ingest", "eta", "arrivals", "rows.jsonl")
    assert done.exit_code == 9
    assert "1 facts of 'arrivals' are in space/events, 3 in quarantine." in done.output
    assert "Next: mainspring quarantine list eta --workspace space" in done.output
    listed = json.loads(ask("quarantine", "list", "eta", "--json").output)
    assert {"source": "arrivals", "reason": "minutes: must be at most 2880", "rows": 2} in listed
    assert ask("quarantine", "show", "eta", "--limit", "1").output.count("minutes: must be at most 2880") == 1
    shown = ask("quarantine", "show", "eta", "--source", "arrivals", "--reason", "minutes", "--json").output
    Path("edited.jsonl").write_text(shown.replace("12000", "90"))
    retried = ask("quarantine", "retry", "eta", "--edited", "edited.jsonl", "--json")
    assert (retried.exit_code, json.loads(retried.output)) == (
        9,
        {"arrivals": {"accepted": 1, "rejected": {"minutes: must be at most 2880": 1}}},
    )
    assert ids() == ["t0", "t1"]
    Path("edited.jsonl").write_text(shown.replace("9000", "95"))
    assert ask("quarantine", "retry", "eta", "--source", "arrivals", "--edited", "edited.jsonl").exit_code == 0
    assert ids() == ["t0", "t1", "t2"]
    again = ask("quarantine", "retry", "eta")
    assert (again.exit_code, ids()) == (9, ["t0", "t1", "t2"])
    assert "1  the line is not JSON" in again.output


def test_a_good_file_says_so(here: Path) -> None:
    Path("good.ndjson").write_text(json.dumps({"trip_id": "t", **ARRIVAL, "minutes": 5}))
    done = ask("ingest", "eta", "arrivals", "good.ndjson", "--json")
    assert (done.exit_code, json.loads(done.output)) == (0, {"offset": 1, "accepted": 1, "rejected": {}, "violations": []})
    assert "Nothing is in quarantine" in ask("quarantine", "list", "eta").output
    assert ask("quarantine", "retry", "eta").exit_code == 0


def test_damaged_lines_are_counted(here: Path) -> None:
    ask("ingest", "eta", "arrivals", "rows.jsonl")
    file = Path("space/quarantine/arrivals.jsonl")
    file.write_bytes(file.read_bytes().replace(b"12000", b"12001"))
    assert "1  arrivals                 damaged lines" in ask("quarantine", "list", "eta").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ingest", "eta", "arrivals", "nothing.parquet"], "cannot be read as Parquet"),
        (["ingest", "eta", "arrival", "rows.jsonl"], "no source 'arrival'. Did you mean 'arrivals'?"),
        (["quarantine", "retry", "eta", "--source", "arrival"], "no source 'arrival'. Did you mean 'arrivals'?"),
        (["quarantine", "retry", "eta", "--edited", "nothing"], "Edited rows, nothing: cannot be read"),
        (["quarantine", "retry", "eta", "--edited", "rows.jsonl"], "row 1: is no row as `mainspring quarantine show --json` prints them"),
    ],
)
def test_failures_are_one_line_with_a_code(here: Path, arguments: list[str], said: str) -> None:
    done = ask(*arguments)
    assert done.exit_code == 3
    assert said in done.output


@pytest.mark.parametrize("verb", sorted(quarantine.commands))
def test_every_part_of_quarantine_has_an_example(verb: str) -> None:
    assert f"mainspring quarantine {verb}" in CliRunner().invoke(main, ["quarantine", verb, "--help"]).output.split("Example:", 1)[1]
