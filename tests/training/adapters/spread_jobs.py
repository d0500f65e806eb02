"""What the processes of the tests run: a small net in float64, every way of spreading it, with and without an interruption."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.models.adapters.nets.bodies import Mlp
from mainspring.models.adapters.nets.fitting import Schedule
from mainspring.models.adapters.nets.net import NetLearner, NetPredictor
from mainspring.models.adapters.nets.objectives import Task, targets
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.protocol import Rows
from mainspring.training.adapters.distributed.job import Job
from mainspring.training.adapters.distributed.nets import NetWork
from mainspring.training.adapters.distributed.worker import joined, leave, train

NAMES = ("a", "b", "c", "kind")
SPREADS = ("ddp", "fsdp", "tensor", "pipeline-gpipe", "pipeline-1f1b")
SCHEDULE = Schedule(epochs=3, batch=64, learning_rate=1e-2, clip=0.5)
LEARNER = NetLearner(Mlp((16, 12, 8)), (Task("regression"), Task("binary", share=0.5)), SCHEDULE)


def rows(n: int) -> Rows:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 4))
    x[:, 3] = rng.integers(0, 6, n)
    x[rng.random(x.shape) < 0.1] = np.nan
    y = 3 * np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) ** 2 + 2 * (x[:, 3] == 2)
    return Rows(x, np.column_stack([y, y > 1.0]), weight=rng.uniform(0.5, 2.0, n))


@dataclass(frozen=True, slots=True)
class Trapped(NetWork):
    """Raises before the step that the file ``raise`` names; the second process kills itself at the step in ``kill``, once."""

    folder: Path

    def batch(self, numbers: Any) -> tuple[Any, Any]:
        taken[0] += 1
        if taken[0] == traps.get("raise"):
            raise InterruptedError
        if taken[0] == traps.get("kill") and os.environ["RANK"] == "1":
            (self.folder / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return NetWork.batch(self, numbers)


taken = [0]
traps: dict[str, int] = {}


def work(folder: str) -> NetWork:
    taken[0] = 0
    traps.clear()
    for trap in ("raise", "kill"):
        with suppress(FileNotFoundError):
            traps[trap] = int((Path(folder) / trap).read_text())
    begun, all_rows = beginning(), rows(640)
    return Trapped(begun.net, begun.tasks, begun.columns.apply(all_rows.x), targets(all_rows.y, all_rows.weight), Path(folder))


def beginning() -> NetPredictor:
    torch.manual_seed(7)
    return LEARNER.prepare(rows(640), NAMES, ("kind",))


def job(folder: Path, parallel: str, **changes: Any) -> Job:
    settings: dict[str, Any] = {"schedule": SCHEDULE, "precision": "float64", "checkpoint_every": 8, "microbatches": 4}
    return Job("spread_jobs:work", {"folder": str(folder)}, str(folder), parallel, **{**settings, **changes})  # type: ignore[arg-type]


def main(folder: Path) -> None:
    with joined():
        for parallel in SPREADS:
            train(job(folder / parallel, parallel))
            broken = folder / f"{parallel}-broken"
            with suppress(InterruptedError):
                train(job(broken, parallel))
            torch.distributed.barrier()
            (broken / "raise").unlink(missing_ok=True)
            torch.distributed.barrier()
            train(job(broken, parallel))
        train(job(folder / "bf16", "fsdp", precision="bf16"))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
