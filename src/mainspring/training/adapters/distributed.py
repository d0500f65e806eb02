"""Training on several processes: one job, the way it is spread chosen by one argument, started by one call or by torchrun."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from mainspring.errors import DeclarationError, TrainingError, did_you_mean
from mainspring.models.adapters.torch_fitting import Schedule

Parallel = Literal["none", "ddp", "fsdp", "tensor", "pipeline-gpipe", "pipeline-1f1b"]
Precision = Literal["float32", "float64", "bf16"]
WORKER = "mainspring.training.adapters.distributed_worker"
LOG = "processes.log"
FRESH_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
_TOLD = 2_000


class Work(Protocol):
    """What is trained, made anew in each process: the same net, with the same weights, and the same rows everywhere."""

    @property
    def net(self) -> Any:
        """A ``torch.nn.Sequential``; its layers are what is spread."""
        ...

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    def batch(self, numbers: Any) -> tuple[Any, Any]:
        """Inputs and targets, tensors of as many rows, for an int64 tensor of row numbers."""
        ...

    def loss(self, outputs: Any, target: Any) -> Any:
        """The mean loss over the rows; the mean over equal parts of a batch must be that of the batch."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One training run, the same in each process.

    ``work`` names the function, ``module:name``, that makes the `Work` from ``settings`` (JSON). ``parallel`` says how it is spread:

    - ``none``: one process;
    - ``ddp``: each process has the net and a part of each batch;
    - ``fsdp``: likewise, and a part of each weight, gathered when used;
    - ``tensor``: pairs of linear layers split, the first by columns, the second by rows;
    - ``pipeline-gpipe``, ``pipeline-1f1b``: consecutive layers on each process, a batch in ``microbatches``; the second begins
      backward passes before all forward passes are done, and holds fewer of them in memory.

    A batch is a function of the seed and the step; what is left of an epoch below a whole batch is not seen in it. Every
    ``checkpoint_every`` steps, and after the last, a checkpoint is written to ``folder``, which all processes must share.
    ``bf16`` computes in bfloat16 and keeps weights in float32.
    """

    work: str
    settings: Mapping[str, Any]
    folder: str
    parallel: Parallel = "none"
    schedule: Schedule = field(default_factory=Schedule)
    precision: Precision = "float32"
    microbatches: int = 4
    checkpoint_every: int = 200
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for value, known in ((self.parallel, get_args(Parallel)), (self.precision, get_args(Precision))):
            if value not in known:
                raise DeclarationError(f"A training job's '{value}' is not known.{did_you_mean(value, known)}")

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to go on from a checkpoint: all but the place, the spread and the threads."""
        kept = ("work", "settings", "schedule", "precision", "seed")
        whole = {name: value for name, value in asdict(self).items() if name in kept}
        return dict(json.loads(json.dumps(whole)))

    def make(self) -> Work:
        """The work, from the function that ``work`` names.

        Raises:
            DeclarationError: there is no such function.
        """
        module, _, name = self.work.partition(":")
        try:
            made: Work = getattr(importlib.import_module(module), name)(**self.settings)
        except (ImportError, AttributeError, ValueError) as error:
            raise DeclarationError(
                f"A training job's work '{self.work}' cannot be made ({error}). Name it as 'module:function'."
            ) from error
        return made

    def to_file(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def from_file(cls, path: Path) -> Job:
        """The job that `to_file` wrote."""
        body = json.loads(path.read_text())
        return cls(**{**body, "schedule": Schedule(**body["schedule"])})


def launch(job: Job, processes: int, restarts: int = 3, *, over: str | None = None) -> None:
    """Train on so many processes of this machine, or ``over`` Ray, and come back when all are done.

    If a process dies, all are started again, at most ``restarts`` times, and go on from the last checkpoint. A job that was begun in the
    folder before is gone on with likewise. On several machines torchrun starts the same, on each of them, with a folder that they share:
    ``torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m WORKER job.json``, where WORKER is this
    module's constant. There too set the environment variable that `FRESH_STORE` names to 1: without it, processes that torch 2.13
    started again may look for each other at the addresses of those that died.

    ``over`` has Ray Train start the same instead: ``"ray"`` on this machine, ``"ray:HOST:PORT"`` on the cluster there, whose machines must
    share the folder and have this package.

    Raises:
        DeclarationError: the job cannot be spread so.
        TrainingError: the processes failed; the message has the end of their log.
        MissingExtraError: Ray is not installed.
    """
    if (job.parallel == "none") != (processes == 1):
        raise DeclarationError(
            f"A training job '{job.parallel}' cannot run on {processes} processes. 'none' takes 1, all others 2 or more."
        )
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if over is not None:
        from mainspring.training.adapters.ray_train import train_on_ray

        train_on_ray(over, job, processes, restarts)
        return
    job.to_file(folder / "job.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    own = {"OMP_NUM_THREADS": str(job.threads), "PYTHONPATH": os.pathsep.join(one for one in sys.path if one), FRESH_STORE: "1"}
    with (folder / LOG).open("wb") as log:
        done = subprocess.run(
            [*command, "-m", WORKER, str(folder / "job.json")], env={**os.environ, **own}, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        told = (folder / LOG).read_text(errors="replace")[-_TOLD:]
        raise TrainingError(f"Training '{job.work}' on {processes} processes failed. The end of {folder / LOG}:\n{told}")
