"""Tabular nets trained on several processes: the same learner, the same predictor, another way of getting there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mainspring.models.adapters.nets.net import NetLearner, NetPredictor
from mainspring.models.adapters.nets.objectives import Task, mean_loss, targets
from mainspring.models.adapters.nets.runtime import repeatable, torch
from mainspring.models.protocol import Rows
from mainspring.training.adapters.distributed.checkpoint import Checkpoints
from mainspring.training.adapters.distributed.job import Job, Parallel, Precision
from mainspring.training.adapters.distributed.launch import launch

BEGINNING = "beginning"


@dataclass(frozen=True, slots=True)
class NetWork:
    """A tabular net with its rows, in memory or mapped from files."""

    net: Any
    tasks: tuple[Task, ...]
    x: Any
    target: Any

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.x)

    def batch(self, numbers: Any) -> tuple[Any, Any]:
        """Inputs in the precision of the net, targets in float64."""
        at = numbers.numpy()
        dtype = next(self.net.parameters()).dtype
        return torch.from_numpy(self.x[at]).to(dtype), torch.from_numpy(self.target[at])

    def loss(self, outputs: Any, target: Any) -> Any:
        """The tasks' mean loss."""
        return mean_loss(self.tasks, outputs, target)


def stored_work(folder: str) -> NetWork:
    """The net and rows that `fit_on_processes` left in ``folder`` for its processes."""
    place = Path(folder)
    names = (place / "names.txt").read_text().split("\n")
    begun = NetLearner().load({file.name: file.read_bytes() for file in (place / BEGINNING).iterdir()}, names)
    return NetWork(begun.net, begun.tasks, np.load(place / "x.npy", mmap_mode="r"), np.load(place / "target.npy", mmap_mode="r"))


def fit_on_processes(
    learner: NetLearner, rows: Rows, *, names: Sequence[str], categorical: Sequence[str], seed: int, folder: Path, parallel: Parallel,
    processes: int, precision: Precision = "float32", microbatches: int = 4, checkpoint_every: int = 200, threads: int = 1,
    start: NetPredictor | None = None,
) -> NetPredictor:  # fmt: skip
    """Fit as `NetLearner.fit` does, on several processes, for all epochs of its schedule: nothing is held out.

    ``folder`` gets, in one named by their content, the rows as the net takes them, the net before its first step, and the
    checkpoints. Called again with the same, it goes on where it was.

    Raises:
        DeclarationError: the net cannot be spread so.
        TrainingError: the rows cannot be learned from, the processes failed, or the folder holds another job.
    """
    with repeatable(seed, threads):
        begun = learner.prepare(rows, names, categorical, start)
    place = _store(begun, rows, folder)
    job = Job(
        f"{__name__}:stored_work", {"folder": str(place)}, str(place), parallel, learner.schedule, precision, microbatches,
        checkpoint_every, seed, threads,
    )  # fmt: skip
    launch(job, processes)
    begun.net.to(torch.float64 if precision == "float64" else torch.float32)
    Checkpoints(place, job.identity()).weights(begun.net)
    begun.net.float().eval()
    return begun


def _store(begun: NetPredictor, rows: Rows, folder: Path) -> Path:
    """Write what the processes read, in a folder named by it, so that other rows never meet these checkpoints."""
    x, target, files = begun.columns.apply(rows.x), targets(rows.y, rows.weight), begun.to_artifacts()
    place = folder / xxhash.xxh3_128_hexdigest(b"".join([x.data, target.data, *files.values()]))
    (place / BEGINNING).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (place / BEGINNING / name).write_bytes(data)
    (place / "names.txt").write_text("\n".join(begun.names))
    np.save(place / "x.npy", x)
    np.save(place / "target.npy", target)
    return place
