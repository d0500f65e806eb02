"""Chunks of a file scored by workers of Ray Data, each a scorer of its own; what a chunk comes to is the job's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mainspring.errors import TrainingError
from mainspring.scoring.chunks import Job, Numbered, score_chunk
from mainspring.scoring.scorer import opened_scorer
from mainspring.storage.workspace import Workspace
from mainspring.training.adapters.ray_cluster import cluster

_TOLD = 2_000


def score_on_ray(
    address: str, space: Workspace, job: Job, parts: Path, numbers: Sequence[int], workers: int, progress: Callable[[int, int], None]
) -> None:
    """Score the chunks of these numbers on so many workers of the cluster at ``address``, one core each.

    Workspace, file and ``parts`` must be reached by the same paths on all of its machines.

    Raises:
        DeclarationError: this is no such address.
        MissingExtraError: Ray is not installed.
        TrainingError: there is no cluster at the address, or the workers failed.
    """
    with cluster(address, workers + 1):
        from ray import data
        from ray.exceptions import RayError

        data.DataContext.get_current().enable_progress_bars = False
        given = data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        arguments = {"space": str(space.path), "job": job, "parts": str(parts)}
        done = given.map_batches(_Worker, fn_constructor_kwargs=arguments, batch_size=1, concurrency=workers, num_cpus=1)
        try:
            for count, _ in enumerate(done.iter_rows(), 1):
                progress(count, len(numbers))
        except RayError as error:
            raise TrainingError(f"Scoring on {workers} workers of Ray failed.\n{str(error)[-_TOLD:]}") from error


class _Worker:
    """Reads the file once, forward, and scores those chunks that it is given."""

    def __init__(self, space: str, job: Job, parts: str) -> None:
        self._job, self._parts = job, Path(parts)
        self._opened = opened_scorer(Workspace(Path(space)), job.where, job.chain)
        self._scorer = self._opened.__enter__()
        self._chunks: Iterator[Numbered] = iter(())
        self._at = -1

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for number in batch["number"].tolist():
            score_chunk(self._scorer, self._parts, self._chunk(number))
        return batch

    def _chunk(self, number: int) -> Numbered:
        if number <= self._at or self._at < 0:
            self._chunks = self._job.chunks(self._scorer.system.request.schema)
        found = next(one for one in self._chunks if one.number == number)
        self._at = number
        return found
