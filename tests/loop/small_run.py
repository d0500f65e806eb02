"""A small run on real flights: seven weeks of history, a few days of replay. As a script: ``small_run.py WORKSPACE DAYS``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from mainspring.clock import DAY
from mainspring.ingestion.recording import Recording
from mainspring.loop.progress import Silent
from mainspring.loop.run import Run
from mainspring.storage.workspace import Workspace
from mainspring.systems.eta import flights, system


def small_recording(days: int) -> Recording:
    full = flights.load()
    sources = [system.request, *system.sources]
    return full.within(sources, full.history_until - 49 * DAY, full.history_until + days * DAY)


class Loud(Silent):
    """Prints each step, so that a killer knows where the run is."""

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        print(stage, done, total, note, flush=True)


def small_run(workspace: Path, days: int, progress: Silent | None = None) -> Run:
    declared = dataclasses.replace(system, model=dataclasses.replace(system.model, trees=40, retrain_every="3d"))
    assert declared.rollout is not None
    rollout = dataclasses.replace(declared.rollout, shadow="6h", step="6h", margin=0.05, cooldown="2d")
    declared = dataclasses.replace(declared, rollout=rollout)
    return Run(declared, small_recording(days), Workspace(workspace), progress or Silent())


if __name__ == "__main__":
    run = small_run(Path(sys.argv[1]), int(sys.argv[2]), Loud())
    run.execute()
    run.close()
