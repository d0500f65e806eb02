"""Answers to whole files: the server's to the bit, in every format, whatever is killed or released meanwhile."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from delivery import NOW, build, system, tables
from mainspring.cli import main
from mainspring.clock import DAY, format_instant
from mainspring.errors import DataError, RegistryError, StorageError
from mainspring.gateway.backend import opened
from mainspring.model_registry.registry import Registry
from mainspring.scoring.job import score_file
from mainspring.serving.answer import Ask
from mainspring.storage.workspace import Workspace


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("scoring") / "space", versions=2)


def questions(n: int = 1_000) -> pa.Table:
    """Deliveries after all that is known, some without a distance."""
    rng = np.random.default_rng(3)
    km = [None if one < 2 else float(one) for one in rng.uniform(1, 40, n)]
    depots = rng.choice(["north", "south", "west"], n).tolist()
    sent = (NOW + 2 * DAY + rng.integers(0, DAY, n)).tolist()
    return pa.table({"drive": [f"q{number}" for number in range(n)], "sent_at": sent, "depot": depots, "km": km})


def served(space: Workspace, rows: list[dict[str, Any]]) -> list[Any]:
    with opened(space, stream=True) as backend:
        asks = [Ask(str(number), row, False, 0, 1 << 62) for number, row in enumerate(rows)]
        return [backend.answer_many([ask])[0] for ask in asks]


def as_tuples(table: pa.Table) -> list[tuple[Any, ...]]:
    return [(row["score"], row["low"], row["high"], row["answered_by"], row["version"]) for row in table.to_pylist()]


@pytest.mark.parametrize("where", ["offline", "online"])
def test_a_thousand_answers_are_the_servers_to_the_bit(space: Workspace, tmp_path: Path, where: Any) -> None:
    pq.write_table(questions(), tmp_path / "in.parquet")
    done = score_file(space, tmp_path / "in.parquet", tmp_path / "out.parquet", where=where, rows=300)
    assert (done.answered, done.rejected, done.rejects) == (1_000, 0, None)
    scored = pq.read_table(done.out)
    wanted = served(space, questions().to_pylist())
    assert as_tuples(scored) == [(one.prediction, one.interval.low, one.interval.high, one.answered_by, one.version) for one in wanted]
    assert scored.column("row").to_pylist() == list(range(1_000))
    assert scored.column("request.drive").to_pylist() == questions().column("drive").to_pylist()
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_model_that_is_late_for_a_server_scores_every_row_of_a_file(tmp_path: Path) -> None:
    hurried = build(tmp_path / "space", declared=replace(system, policy=replace(system.policy, deadline="1us")))
    pq.write_table(questions(100), tmp_path / "in.parquet")
    scored = pq.read_table(score_file(hurried, tmp_path / "in.parquet", tmp_path / "out.parquet", rows=10).out)
    assert scored.column("answered_by").to_pylist() == ["model"] * 100


def written(folder: Path, kind: str, table: pa.Table) -> Path:
    path = folder / f"in.{kind}"
    rows = [{**row, "sent_at": format_instant(row["sent_at"])} for row in table.to_pylist()]
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    elif kind == "feather":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["arrow", "feather", "csv", "jsonl"])
def test_every_format_gives_the_same_answers(space: Workspace, tmp_path: Path, kind: str) -> None:
    found = [
        as_tuples(pq.read_table(score_file(space, written(tmp_path, one, questions(50)), tmp_path / f"{one}.parquet", rows=20).out))
        for one in ("parquet", kind)
    ]
    assert found[0] == found[1]


def test_past_questions_are_answered_by_what_was_known_then(space: Workspace, tmp_path: Path) -> None:
    past = tables()["drives"].slice(2_000, 200)
    scored = pq.read_table(score_file(space, written(tmp_path, "parquet", past), tmp_path / "out.parquet").out)
    minutes, arrived, depot = (tables()["done"].column(name).to_numpy(False) for name in ("minutes", "done_at", "depot"))
    for row in scored.slice(0, 20).to_pylist():
        known = (arrived < row["as_of"]) & (arrived >= row["as_of"] - 7 * DAY) & (depot == row["request.depot"])
        assert row["feature.at_depot__minutes_mean_7d"] == pytest.approx(minutes[known].mean(), rel=1e-12)


def test_rejected_rows_go_to_a_file_with_reasons(space: Workspace, tmp_path: Path) -> None:
    lines = [
        '{"drive": "a", "sent_at": "2025-02-12T00:00:00Z", "depot": "north", "km": 5}',
        '{"drive": "b", "sent_at": "2025-02-12T00:00:00Z", "depot": "moon", "km": 5}',
        '{"drive": "c", "sent_at": "2025-02-12T00:00:00Z", "depot": "north", "km": -5}',
        "not JSON",
        '{"drive": "d", "sent_at": "2024-06-01T00:00:00Z", "depot": "north", "km": 5}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    done = score_file(space, tmp_path / "in.jsonl", tmp_path / "out.parquet", rows=2)
    assert (done.answered, done.rejected) == (1, 4)
    assert done.rejects is not None
    told = [json.loads(line) for line in done.rejects.read_text().splitlines()]
    assert [one["row"] for one in told] == [1, 2, 3, 4]
    reasons = ["depot: 'moon' is not a known depot", "km: must be", "the line is not JSON", "depot: 'north' is not a known depot"]
    assert all(one["reason"].startswith(reason) for one, reason in zip(told, reasons, strict=True)), told


def test_cells_of_csv_that_fit_no_type_are_rejected_one_by_one(space: Workspace, tmp_path: Path) -> None:
    text = (
        "drive,sent_at,depot,km\na,2025-02-12,north,5\nb,2025-02-12,north,far\nc,2025-02-12,north,\nd,2025-02-12,north,5,6\ne,2025-02-12\n"
    )
    (tmp_path / "in.csv").write_bytes(text.encode() + b"\xff,2025-02-12,north,5\n")
    done = score_file(space, tmp_path / "in.csv", tmp_path / "out.parquet")
    assert pq.read_table(done.out).column("row").to_pylist() == [0, 2]
    assert done.rejects is not None
    told = [json.loads(line)["reason"] for line in done.rejects.read_text().splitlines()]
    wanted = ["km: must be a number", "beyond the header: is not known", "depot: is null", "must be text that UTF-8 can hold"]
    assert all(want in one for one, want in zip(told, wanted, strict=True)), told


def test_a_named_version_answers_alone(space: Workspace, tmp_path: Path) -> None:
    source = written(tmp_path, "parquet", questions(20))
    done = score_file(space, source, tmp_path / "out.parquet", which="1")
    assert done.versions == ("model:delivery:1",)
    assert set(pq.read_table(done.out).column("version").to_pylist()) == {"model:delivery:1"}
    with pytest.raises(RegistryError, match="no version"):
        score_file(space, source, tmp_path / "other.parquet", which="9")


def test_a_named_version_that_cannot_be_loaded_is_no_file_of_rejected_rows(tmp_path: Path) -> None:
    space = build(tmp_path / "space", versions=2)
    for blob in (space.registry / "blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o644)
            blob.write_bytes(blob.read_bytes()[:-40] if b"tree" in blob.read_bytes()[:4] else blob.read_bytes())
    with pytest.raises(RegistryError, match="model:delivery:1 cannot be loaded, and nothing stands in for it"):
        score_file(space, written(tmp_path, "parquet", questions(20)), tmp_path / "out.parquet", which="1")


def test_what_is_no_job_is_refused(space: Workspace, tmp_path: Path) -> None:
    source = written(tmp_path, "parquet", questions(20))
    for given, out, message in [
        (source, "out.csv", "ends in .parquet"),
        (tmp_path / "none.parquet", "out.parquet", "cannot be read"),
        (written(tmp_path, "parquet", questions(20).drop_columns(["depot"])), "out.parquet", "column 'depot': it is missing"),
    ]:
        with pytest.raises(DataError, match=message):
            score_file(space, given, tmp_path / out)
    (tmp_path / "in.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"'\.xlsx' is no kind of file"):
        score_file(space, tmp_path / "in.xlsx", tmp_path / "xlsx.parquet")
    (tmp_path / "in.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="no question"):
        score_file(space, tmp_path / "in.jsonl", tmp_path / "empty.parquet")


def test_a_killed_job_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    space = build(tmp_path / "space", versions=2)
    source, out = written(tmp_path, "parquet", questions(1_000)), tmp_path / "out.parquet"
    parts = tmp_path / "out.parquet.parts"
    command = [sys.executable, "-m", "mainspring", "score", "delivery", "--in", str(source), "--out", str(out), "--rows", "25"]
    import os

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([*command, "--workspace", str(space.path)], stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 30
    while len(list(parts.glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {file.name: file.stat().st_mtime_ns for file in parts.glob("*.parquet")}
    assert 3 <= len(before) < 40
    registry = Registry(space.registry)
    registry.decide("delivery", "roll_back", at=NOW + 9, by="test", reason="test")
    registry.close()
    with pytest.raises(StorageError, match="is half done here"):
        score_file(space, source, out, rows=20)
    done = score_file(space, source, out, rows=25)
    assert (done.answered, done.rejected) == (1_000, 0)
    assert set(pq.read_table(out).column("version").to_pylist()) == {"model:delivery:2"}, "the version that it began with"


def test_the_verb_says_what_it_wrote(space: Workspace, tmp_path: Path) -> None:
    source = written(tmp_path, "parquet", questions(20))
    arguments = ["score", "delivery", "--in", str(source), "--out", str(tmp_path / "out.parquet"), "--workspace", str(space.path)]
    assert "Wrote 20 answers of model:delivery:2" in CliRunner().invoke(main, arguments).output
    told = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert (told["answered"], told["rejected"], told["rejects"]) == (20, 0, None)
