"""What tracking costs a training: a logged step and a whole run, beside bare SQLite and beside MLflow."""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path

from harness import QUICK, Bar, bar, interleaved, peer

from mainspring.training.tracking.tracker import Tracker

STEPS, RUNS, ROUNDS = (5_000, 10, 2) if QUICK else (50_000, 50, 5)
PEER_STEPS = 200 if QUICK else 2_000


def tracking_bars(folder: Path) -> list[Bar]:
    """Milliseconds of a step (two metrics) in the training's thread, of a step until it is on disk, of a run, and of reading back."""
    tracker = Tracker(folder / "ours")
    logged, durable = [], []
    for _ in range(ROUNDS):
        seen, kept = _steps(tracker)
        logged.append(seen)
        durable.append(kept)
    floor = interleaved(ROUNDS, {"floor": lambda: _bare(folder)})["floor"]
    theirs = _mlflow(folder)
    bars = [
        bar("log a step of two metrics", "ms", logged, floor=statistics.median(floor), peer=theirs["step"], bar=2.0),
        bar("the same until it is on disk", "ms", durable, floor=statistics.median(floor), bar=2.0),
        bar("record a whole run", "ms", [_runs(tracker) for _ in range(ROUNDS)], peer=theirs["run"], bar=None),
    ]
    run = tracker.runs("steps")[-1]
    started = time.perf_counter()
    curves = tracker.curves(run)
    read = time.perf_counter() - started
    if [len(curve.step) for curve in curves.values()] != [STEPS, STEPS]:
        raise SystemExit("Not all steps came back")
    tracker.close()
    return [*bars, bar(f"read {2 * STEPS:,} values back", "ms", [read * 1e3])]


def _steps(tracker: Tracker) -> tuple[float, float]:
    with tracker.start("steps") as run:
        started = time.perf_counter()
        for step in range(STEPS):
            run.step(step, {"train/loss": 1.0 / (step + 1), "validation/loss": 2.0 / (step + 1)})
        logged = time.perf_counter() - started
        tracker.flush()
        kept = time.perf_counter() - started
    return logged / STEPS * 1e3, kept / STEPS * 1e3


def _bare(folder: Path) -> float:
    """The floor: one transaction of bare SQLite a step, in write-ahead mode with fsync; milliseconds a step."""
    count = STEPS // 50
    connection = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS steps (run, name, step, value, at)")
    started = time.perf_counter()
    for step in range(count):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO steps VALUES (1, ?, ?, ?, 0)", [("a", step, 1.0), ("b", step, 2.0)])
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return seconds / count * 1e3


def _runs(tracker: Tracker) -> float:
    started = time.perf_counter()
    for number in range(RUNS):
        with tracker.start("whole", parameters={"trees": number, "rate": 0.1}, seed=number) as run:
            run.metrics({"test/loss": 1.0})
    return (time.perf_counter() - started) / RUNS * 1e3


def _mlflow(folder: Path) -> dict[str, float]:
    """Milliseconds of the same by MLflow on its own SQLite store, in an environment of its own."""
    script = Path(__file__).parent / "peers" / "mlflow_tracking.py"
    command = [str(peer("mlflow")), str(script), str(folder), str(PEER_STEPS), str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
