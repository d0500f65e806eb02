"""A file of questions to a file of answers, by chunks that are each written whole or not at all, so that a killed job goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from mainspring.errors import DataError, StorageError
from mainspring.model_registry.registry import open_registry
from mainspring.schema import Schema
from mainspring.scoring.chunks import Job, part_of, score_chunk
from mainspring.scoring.scorer import Where, chain_of, opened_scorer
from mainspring.serving.versions import load_system
from mainspring.storage.durable import replacing
from mainspring.storage.workspace import Workspace

CHUNK_ROWS = 10_000
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Done:
    """What a job wrote: rows answered and rejected, where to, and the versions that could answer."""

    answered: int
    rejected: int
    out: Path
    rejects: Path | None
    versions: tuple[str, ...]


def score_file(
    space: Workspace,
    source: Path,
    out: Path,
    *,
    which: str | None = None,
    where: Where = "offline",
    rows: int = CHUNK_ROWS,
    over: str = "",
    workers: int = 2,
    progress: Progress = lambda _done, _total: None,
) -> Done:
    """Answer every row of ``source`` and write the answers to ``out``, Parquet, and those rejected beside it, with reasons.

    Each row is a question as of its own event time: ``offline`` from the tables as they were known then, ``online`` from the store as it is
    now, which fits questions about now alone. All of it is answered by the version ``which``, or by what is live as the job begins. A job
    that was killed goes on with the same call; ``rows`` is how many are in memory at a time. ``over`` is ``ray`` or ``ray:HOST:PORT`` for
    ``workers`` of Ray, in this process without it.

    Raises:
        DataError: the file cannot be read, its columns are not those of the request, or ``out`` is no ``.parquet``.
        DeclarationError: ``over`` is no address of Ray.
        MissingExtraError: Ray is not installed.
        RegistryError: there is no such version, or the only one that may answer cannot be loaded.
        StorageError: another job writes to ``out``, or it cannot be written.
        TrainingError: there is no cluster at the address, or its workers failed.
    """
    if out.suffix != ".parquet":
        raise DataError(f"{out}: answers are written as Parquet. Give a name that ends in .parquet.")
    parts = out.with_name(out.name + ".parts")
    job, schema = _job(space, source, which, where, rows)
    job = _begin(parts, job)
    try:
        if over:
            from mainspring.scoring.adapters.ray_data import score_on_ray

            left = [one.number for one in job.chunks(schema) if not part_of(parts, one.number).exists()]
            score_on_ray(over, space, job, parts, left, workers, progress)
        else:
            _score_here(space, job, parts, progress)
        return _finish(parts, out, tuple(dict.fromkeys(id for _, id in job.chain)))
    except OSError as error:
        raise StorageError(f"{out}: the answers cannot be written ({error}). Free space, and ask again: it goes on.") from error


def _score_here(space: Workspace, job: Job, parts: Path, progress: Progress) -> None:
    with opened_scorer(space, job.where, job.chain) as scorer:
        for one in job.chunks(scorer.system.request.schema):
            score_chunk(scorer, parts, one)
            progress(one.chunk.done, one.chunk.total)


def _job(space: Workspace, source: Path, which: str | None, where: Where, rows: int) -> tuple[Job, Schema]:
    try:
        stat = source.stat()
    except OSError as error:
        raise DataError(f"{source}: it cannot be read ({error}).") from error
    with closing(open_registry(space.registry_url)) as registry:
        system = load_system(registry)
        chain = chain_of(system, registry, which)
    job = Job(str(source.absolute()), stat.st_size, stat.st_mtime_ns, which, where, rows, system.hash, chain)
    return job, system.request.schema


def _begin(parts: Path, job: Job) -> Job:
    """The job that is under way in ``parts``, if it is this one: with the chain that it began with; else this one, begun."""
    file = parts / "job.json"
    if file.exists() and any(parts.glob("*.parquet")):
        begun = msgspec.json.decode(file.read_bytes(), type=Job)
        if msgspec.structs.replace(begun, chain=job.chain) != job:
            raise StorageError(
                f"{parts}: a job of another file, version or size of chunks is half done here. Finish it, or remove the folder."
            )
        return begun
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with replacing(file) as target:
            target.write(msgspec.json.encode(job))
    except OSError as error:
        raise StorageError(f"{parts}: cannot be written ({error}). Free space on the disk or name another file.") from error
    return job


def _finish(parts: Path, out: Path, versions: tuple[str, ...]) -> Done:
    files = sorted(parts.glob("*.parquet"))
    if not files:
        raise DataError(f"{out}: there is no question in the file. Give one with rows.")
    rejects = out.with_suffix(".rejected.jsonl")
    rejected = answered = 0
    with replacing(rejects) as target:
        for file in files:
            lines = file.with_suffix(".jsonl").read_bytes()
            rejected += lines.count(b"\n")
            target.write(lines)
    with replacing(out) as target, pq.ParquetWriter(target, pq.read_schema(files[0]), compression="zstd") as writer:
        for file in files:
            table = pq.read_table(file)
            answered += len(table)
            writer.write_table(table)
    if not rejected:
        rejects.unlink()
    shutil.rmtree(parts)
    return Done(answered, rejected, out, rejects if rejected else None, versions)


def as_json(done: Done) -> dict[str, Any]:
    """A job's end, ready for JSON."""
    return {**asdict(done), "out": str(done.out), "rejects": None if done.rejects is None else str(done.rejects)}
