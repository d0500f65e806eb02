"""Training on several processes: one job, started by one call, by torchrun or by Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mainspring.errors import DeclarationError, TrainingError
from mainspring.training.adapters.distributed.job import Job

WORKER = "mainspring.training.adapters.distributed.worker"
LOG = "processes.log"
FRESH_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
_TOLD = 2_000


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
