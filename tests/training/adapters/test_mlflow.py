"""Runs to a real MLflow server and back; the server has an environment of its own, made on first use."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.clock import HOUR, ManualClock
from mainspring.errors import StorageError
from mainspring.training.tracking.tracker import Tracker

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"

FOREIGN = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("theirs")
with mlflow.start_run() as run:
    mlflow.log_params({"alpha": 0.5})
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_text("hello", "notes/hello.txt")
print(run.info.run_id)
"""


@pytest.fixture(scope="module")
def python() -> str:
    """The Python of MLflow's own environment."""
    make = [sys.executable, "-c", "from harness import peer; print(peer('mlflow'))"]
    return subprocess.run(make, cwd=BENCHMARKS, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def server(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("mlflow", reason="the long suites install it")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/db.sqlite", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_runs_go_there_and_come_back_whole(server: str, tmp_path: Path) -> None:
    from mainspring.training.adapters.mlflow import export_runs, import_runs

    tracker = Tracker(tmp_path / "runs", ManualClock(HOUR))
    with tracker.start("eta", parameters={"trees": 9, "deep": {"rate": 0.1}}, data={"hash": "d"}, seed=3, price_per_hour=2.0) as run:
        for step in range(1_500):
            run.step(step, {"train/loss": 1 / (step + 1)})
        run.metrics({"test/mae": 0.1 + 0.2})
        run.artifact("plot.svg", b"<svg/>")
        run.refer({"model.txt": "0" * 64})
        run.note({"version": "model:eta:1"})
    with pytest.raises(ZeroDivisionError), tracker.start("eta", parent=run.id):
        _ = 1 / 0
    under_way = tracker.start("eta")
    assert len(export_runs(tracker, tracker.runs(), server)) == 2
    under_way.end("finished")
    assert export_runs(tracker, tracker.runs(), server) == [under_way.id]
    other = Tracker(tmp_path / "other")
    assert len(import_runs(other, server, "eta")) == 3
    assert import_runs(other, server, "eta") == []
    for mine in tracker.runs():
        theirs = other.run(mine.id)
        assert theirs == mine
        assert other.environment(theirs) == tracker.environment(mine)
    curve = other.curves(other.run(run.id))["train/loss"]
    assert curve.value.tolist() == [1 / (step + 1) for step in range(1_500)]
    assert other.artifact(other.run(run.id), "plot.svg") == b"<svg/>"
    tracker.close()
    other.close()


def test_what_mlflow_logged_itself_is_taken(server: str, python: str, tmp_path: Path) -> None:
    from mainspring.training.adapters.mlflow import import_runs

    done = subprocess.run([python, "-c", FOREIGN, server], capture_output=True, text=True, check=True, cwd=tmp_path)
    tracker = Tracker(tmp_path / "runs")
    (id,) = import_runs(tracker, server, "theirs")
    assert id in done.stdout
    run = tracker.run(id)
    assert (run.name, run.status, run.parameters) == ("theirs", "finished", {"alpha": "0.5"})
    assert run.metrics == {"loss": pytest.approx(1 / 3)}
    assert tracker.curves(run)["loss"].step.tolist() == [0, 1, 2]
    assert tracker.artifact(run, "notes/hello.txt") == b"hello"
    assert math.isclose(run.seconds or 0.0, ((run.ended_at or 0) - run.started_at) / 1e6)
    tracker.close()


def test_the_server_shows_the_version_and_the_curve(server: str, python: str, tmp_path: Path) -> None:
    from mainspring.training.adapters.mlflow import export_runs

    tracker = Tracker(tmp_path / "runs")
    with tracker.start("shown", parameters={"trees": 9}) as run:
        run.step(4, {"train/loss": 0.5})
        run.note({"version": "model:shown:7"})
    export_runs(tracker, tracker.runs(), server)
    tracker.close()
    look = (
        "import sys, json, mlflow; c = mlflow.MlflowClient(sys.argv[1]); v = c.search_model_versions(\"name = 'shown'\")[0]; "
        "r = c.get_run(v.run_id); print(json.dumps([v.tags, r.data.params, r.data.metrics, r.info.status]))"
    )
    done = subprocess.run([python, "-c", look, server], capture_output=True, text=True, check=True, cwd=tmp_path)
    tags, parameters, metrics, status = json.loads(done.stdout.splitlines()[-1])
    assert tags["mainspring.version"] == "model:shown:7"
    assert (parameters["trees"], metrics, status) == ("9", {"train/loss": 0.5}, "FINISHED")


def test_no_server_is_one_line(tmp_path: Path) -> None:
    from mainspring.training.adapters.mlflow import import_runs

    tracker = Tracker(tmp_path / "runs")
    with pytest.raises(StorageError, match="Check the address"):
        import_runs(tracker, "http://127.0.0.1:9")
    tracker.close()
