"""MLflow's own logging on SQLite: a step of two metrics, and a whole run. Usage: mlflow_tracking.py FOLDER STEPS RUNS."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mlflow


def main(folder: Path, steps: int, runs: int) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.sqlite")
    mlflow.create_experiment("bench", artifact_location=str(folder / "artifacts"))
    mlflow.set_experiment("bench")
    with mlflow.start_run():
        mlflow.log_metrics({"train_loss": 1.0, "validation_loss": 2.0}, step=0)
        started = time.perf_counter()
        for step in range(1, steps):
            mlflow.log_metrics({"train_loss": 1.0 / step, "validation_loss": 2.0 / step}, step=step)
        a_step = (time.perf_counter() - started) / (steps - 1)
    started = time.perf_counter()
    for number in range(runs):
        with mlflow.start_run():
            mlflow.log_params({"trees": number, "rate": 0.1, "seed": number})
            mlflow.log_metrics({"test_loss": 1.0})
    a_run = (time.perf_counter() - started) / runs
    print(json.dumps({"step": a_step * 1e3, "run": a_run * 1e3}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
