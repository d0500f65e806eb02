"""One process of a training job: joins the others, goes on from the last checkpoint, takes every step, writes checkpoints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from torch.distributed.elastic.multiprocessing.errors import record

from mainspring.errors import DeclarationError, TrainingError
from mainspring.models.adapters.nets.fitting import optimiser, set_rate
from mainspring.models.adapters.nets.runtime import repeatable, torch
from mainspring.training.adapters.distributed.checkpoint import Checkpoints
from mainspring.training.adapters.distributed.job import Job, Work
from mainspring.training.adapters.distributed.modes import Spread, clip, spread

dist = torch.distributed


@record  # type: ignore[untyped-decorator]
def main() -> None:
    """Run the job in the file that the command line names, as one of torchrun's processes."""
    with joined():
        train(Job.from_file(Path(sys.argv[1])))
    leave()


@contextmanager
def joined() -> Iterator[None]:
    """Inside, this process is one of the group: over NCCL where each has a GPU, over gloo where not."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def leave() -> NoReturn:
    """End this process, whose work is written, at once: what PyTorch tears down at an ordinary exit aborts now and then."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def train(job: Job) -> None:
    """All steps that the last checkpoint leaves to do, in a process that has joined, or alone if ``parallel`` is ``none``.

    Raises:
        DeclarationError: the net or the batch cannot be spread so.
        TrainingError: the folder holds another job's checkpoints, or the loss is not finite.
    """
    with repeatable(job.seed, job.threads):
        work = job.make()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        spreading = spread(work, job, device)
        adam = optimiser(spreading.net, job.schedule)
        batches = _batches(work, job, spreading)
        steps, folder = job.schedule.epochs * batches, Checkpoints(Path(job.folder), job.identity())
        for step in range(folder.resume(spreading.net, adam), steps):
            torch.manual_seed(_mixed(job.seed, step, spreading.data_rank))
            set_rate(adam, job.schedule.rate(step, steps))
            adam.zero_grad()
            x, target = work.batch(_numbers(work, job, spreading, step, batches))
            loss = spreading.backward(x.to(device), target.to(device))
            clip(spreading, job.schedule.clip)
            adam.step()
            if (step + 1) % job.checkpoint_every == 0 or step + 1 == steps:
                folder.save(spreading.net, adam, step + 1, _finite(spreading.mean(loss), step))


def _batches(work: Work, job: Job, spreading: Spread) -> int:
    parts = spreading.data_parts * (job.microbatches if job.parallel.startswith("pipeline") else 1)
    batch = min(job.schedule.batch, work.rows)
    if batch % parts:
        raise DeclarationError(
            f"A training job's batch of {batch} rows does not split into {parts} equal parts. Choose a multiple of {parts}."
        )
    return work.rows // batch


def _numbers(work: Work, job: Job, spreading: Spread, step: int, batches: int) -> Any:
    """This process's part of the batch: the order of an epoch follows from the seed and the epoch alone."""
    epoch, at = divmod(step, batches)
    order = torch.randperm(work.rows, generator=torch.Generator().manual_seed(_mixed(job.seed, epoch, -1)))
    size = min(job.schedule.batch, work.rows)
    own = size // spreading.data_parts
    return order[at * size + spreading.data_rank * own :][:own]


def _mixed(seed: int, number: int, part: int) -> int:
    return (seed * 1_000_003 + number) * 65_537 + part + 1


def _finite(loss: float, step: int) -> float:
    if not torch.isfinite(torch.tensor(loss)):
        raise TrainingError(f"A training job's loss is {loss} at step {step + 1}. Lower the learning rate, and look for infinite labels.")
    return loss


if __name__ == "__main__":
    main()
