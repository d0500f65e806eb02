"""Runs: what is kept, by many at once, and what a killed process leaves."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mainspring.clock import HOUR, ManualClock
from mainspring.errors import StorageError
from mainspring.training.tracking.environment import code_version, environment
from mainspring.training.tracking.runs import differences
from mainspring.training.tracking.tracker import FLUSH_SECONDS, Tracker


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    tracker = Tracker(tmp_path / "runs", ManualClock(HOUR))
    yield tracker
    tracker.close()


def test_a_record_says_everything(tracker: Tracker) -> None:
    with tracker.start("eta", parameters={"trees": 9}, data={"hash": "d"}, seed=3, price_per_hour=3600.0, parent="p") as run:
        for step in range(3):
            run.step(step, {"train/loss": 1 / (step + 1), "validation/loss": math.nan if step == 1 else math.inf})
        run.metrics({"test/mae": 0.1 + 0.2, "test/huge": math.inf})
        run.artifact("plot.svg", b"<svg/>")
        run.note({"version": "model:eta:1"})
    (found,) = tracker.runs("eta", parent="p")
    assert found == tracker.run(run.id[:5])
    assert (found.status, found.started_at, found.ended_at, found.seed, found.error) == ("finished", HOUR, HOUR, 3, "")
    assert found.metrics == {"test/mae": 0.1 + 0.2, "test/huge": math.inf}
    assert found.cost == found.seconds
    assert 0 < found.seconds < 10
    assert found.code == dict(code_version())
    assert tracker.environment(found) == environment()
    assert {"numpy", "duckdb"} <= set(environment()["packages"])
    assert tracker.artifact(found, "plot.svg") == b"<svg/>"
    curves = tracker.curves(found)
    assert curves["train/loss"].value.tolist() == [1.0, 0.5, 1 / 3]
    assert np.isnan(curves["validation/loss"].value[1])
    assert curves["validation/loss"].step.tolist() == [0, 1, 2]
    assert found.to_dict()["cost"] == found.cost


def test_an_error_passes_through_and_is_recorded(tracker: Tracker) -> None:
    with pytest.raises(ZeroDivisionError), tracker.start("eta"):
        _ = 1 / 0
    (found,) = tracker.runs()
    assert (found.status, found.error) == ("failed", "ZeroDivisionError: division by zero")


def test_unknown_runs_are_named(tracker: Tracker) -> None:
    with tracker.start("eta") as run:
        pass
    with pytest.raises(StorageError, match=f"no run '{run.id[:-1]}x'. Did you mean '{run.id}'"):
        tracker.run(run.id[:-1] + "x")
    with pytest.raises(StorageError, match="has no artifact 'a'"):
        tracker.artifact(tracker.run(run.id), "a")


def test_records_are_append_only(tracker: Tracker) -> None:
    with tracker.start("eta") as run:
        run.step(0, {"a": 1.0})
    with sqlite3.connect(tracker.path / "runs.sqlite") as other, pytest.raises(sqlite3.IntegrityError, match="append only"):
        other.execute("UPDATE steps SET value = 2")
    other.close()


def test_a_training_goes_on_when_its_record_cannot_be_kept(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "runs")
    tracker._connection.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "runs" / "runs.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with tracker.start("eta") as unrecorded:
        unrecorded.step(0, {"a": 1.0})
    assert "cannot be written (database is locked)" in unrecorded.problems[0]
    other.execute("ROLLBACK")
    with tracker.start("eta") as run:
        other.execute("BEGIN IMMEDIATE")
        run.step(0, {"a": 1.0})
        run.step(1, {"a": "high"})  # type: ignore[dict-item]
        time.sleep(2 * FLUSH_SECONDS)
        other.execute("ROLLBACK")
    other.close()
    assert tracker.curves(tracker.run(run.id))["a"].value.tolist() == [1.0]
    assert len(run.problems) == 1
    tracker.close()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "runs.sqlite") as other:
        other.execute("CREATE TABLE x (y)")
    other.close()
    with pytest.raises(StorageError, match="another version or program"):
        Tracker(tmp_path)


WRITER = """
import sys
from pathlib import Path
from mainspring.training.tracking.tracker import Tracker
tracker = Tracker(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    with tracker.start("many", seed=number) as run:
        for step in range(200):
            run.step(step, {"a": step})
        run.metrics({"last": step})
        assert not run.problems, run.problems
tracker.close()
"""


def test_many_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "10"]) for _ in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    tracker = Tracker(tmp_path)
    runs = tracker.runs("many")
    assert len({run.id for run in runs}) == 40
    assert all(run.status == "finished" and run.metrics == {"last": 199.0} for run in runs)
    assert all(tracker.curves(run)["a"].step.tolist() == list(range(200)) for run in runs)
    tracker.close()


KILLED = """
import sys, time
from pathlib import Path
from mainspring.training.tracking.tracker import Tracker
run = Tracker(Path(sys.argv[1])).start("killed")
step = 0
while True:
    run.step(step, {"a": step})
    print(step, flush=True)
    step += 1
    time.sleep(0.001)
"""


def test_a_killed_run_is_seen_as_such_and_has_all_but_its_last_second(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen: list[tuple[float, int]] = []
        while not seen or seen[-1][0] < seen[0][0] + 1.5:
            step = int(process.stdout.readline())
            seen.append((time.monotonic(), step))
        tracker = Tracker(tmp_path)
        assert [run.status for run in tracker.runs()] == ["running"]
        os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        process.wait()
    (run,) = tracker.runs()
    assert run.status == "killed"
    kept = tracker.curves(run)["a"].step.tolist()
    assert kept == list(range(len(kept)))
    assert len(kept) > max(number for at, number in seen if at < killed - 1.0)
    tracker.close()


def test_what_tells_records_apart_is_named() -> None:
    found = differences({"a": {"x": 1, "deep": {"y": 2, "z": [1]}}, "b": {"x": 1, "deep": {"y": 3, "z": [1]}, "more": 0}})
    assert found == {"deep.y": [2, 3], "more": [None, 0]}
