"""Training jobs on Ray Train: it places the processes, has them join, and starts them again; what they do is the job's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from mainspring.errors import TrainingError
from mainspring.training.adapters.distributed.job import Job
from mainspring.training.adapters.ray_cluster import cluster

_TOLD = 2_000


def train_on_ray(address: str, job: Job, processes: int, restarts: int) -> None:
    """Train on so many processes of the cluster at ``address``, with a GPU each where it has as many.

    If a process dies, all are started again, at most ``restarts`` times, and go on from the last checkpoint in the job's folder.

    Raises:
        DeclarationError: this is no such address.
        MissingExtraError: Ray is not installed.
        TrainingError: there is no cluster at the address, or the processes failed; the message has what they said.
    """
    scratch = Path(job.folder).absolute() / "ray"
    shutil.rmtree(scratch, ignore_errors=True)
    with cluster(address, processes * job.threads) as ray:
        from ray.train.torch import TorchConfig, TorchTrainer

        gpus = ray.cluster_resources().get("GPU", 0) >= processes
        trainer = TorchTrainer(
            _work,
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=processes, use_gpu=gpus, resources_per_worker={"CPU": job.threads}),
            run_config=ray.train.RunConfig(
                name="job", storage_path=str(scratch), failure_config=ray.train.FailureConfig(max_failures=restarts)
            ),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"Training '{job.work}' on {processes} workers of Ray failed.\n{str(error)[-_TOLD:]}") from error
    shutil.rmtree(scratch, ignore_errors=True)


def _work(given: dict[str, Job]) -> None:
    from mainspring.training.adapters.distributed.worker import train

    train(given["job"])
