"""A file of questions to a file of answers, by chunks that are each written whole or not at all, so that a killed job goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mainspring.errors import DataError, StorageError
from mainspring.loop.scoring.reading import Chunk, read_chunks
from mainspring.loop.scoring.scorer import Scored, Where, chain_of, opened_scorer
from mainspring.model_registry.registry import open_registry
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
    progress: Progress = lambda _done, _total: None,
) -> Done:
    """Answer every row of ``source`` and write the answers to ``out``, Parquet, and those rejected beside it, with reasons.

    Each row is a question as of its own event time: ``offline`` from the tables as they were known then, ``online`` from the store as it is
    now, which fits questions about now alone. All of it is answered by the version ``which``, or by what is live as the job begins. A job
    that was killed goes on with the same call; ``rows`` is how many are in memory at a time.

    Raises:
        DataError: the file cannot be read, its columns are not those of the request, or ``out`` is no ``.parquet``.
        RegistryError: there is no such version.
        StorageError: another job writes to ``out``, or it cannot be written.
    """
    if out.suffix != ".parquet":
        raise DataError(f"{out}: answers are written as Parquet. Give a name that ends in .parquet.")
    parts = out.with_name(out.name + ".parts")
    job = _begin(parts, _job(space, source, which, where, rows))
    with closing(open_registry(space.registry_url)) as registry:
        schema = load_system(registry).request.schema
    chain = tuple((name, id) for name, id in job["chain"])
    try:
        with opened_scorer(space, where, chain) as scorer:
            for number, first, chunk in _numbered(read_chunks(source, schema, rows)):
                if not _part(parts, number).exists():
                    _write(parts, number, scorer.score(chunk, first))
                progress(chunk.done, chunk.total)
        return _finish(parts, out, tuple(dict.fromkeys(id for _, id in chain)))
    except OSError as error:
        raise StorageError(f"{out}: the answers cannot be written ({error}). Free space, and ask again: it goes on.") from error


def _job(space: Workspace, source: Path, which: str | None, where: Where, rows: int) -> dict[str, Any]:
    try:
        stat = source.stat()
    except OSError as error:
        raise DataError(f"{source}: it cannot be read ({error}).") from error
    with closing(open_registry(space.registry_url)) as registry:
        system = load_system(registry)
        asked = {"which": which, "where": where, "rows": rows, "system": system.hash}
        file = {"source": str(source.absolute()), "size": stat.st_size, "modified": stat.st_mtime_ns}
        return {**asked, **file, "chain": [list(one) for one in chain_of(system, registry, which)]}


def _begin(parts: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The job that is under way in ``parts``, if it is this one: with the chain that it began with; else this one, begun."""
    file = parts / "job.json"
    if file.exists():
        begun: dict[str, Any] = json.loads(file.read_text())
        if {**begun, "chain": None} != {**job, "chain": None}:
            raise StorageError(
                f"{parts}: a job of another file, version or size of chunks was begun here. Finish it, or remove the folder."
            )
        return begun
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with replacing(file) as target:
            target.write(json.dumps(job).encode())
    except OSError as error:
        raise StorageError(f"{parts}: cannot be written ({error}). Free space on the disk or name another file.") from error
    return job


def _numbered(chunks: Iterator[Chunk]) -> Iterator[tuple[int, int, Chunk]]:
    first = 0
    for number, chunk in enumerate(chunks):
        yield number, first, chunk
        first += len(chunk.rows)


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.parquet"


def _write(parts: Path, number: int, scored: Scored) -> None:
    """The answers last: where they are, the chunk is done."""
    with replacing(_part(parts, number).with_suffix(".jsonl")) as file:
        file.writelines(json.dumps(one, default=str).encode() + b"\n" for one in scored.rejected)
    with replacing(_part(parts, number)) as file:
        pq.write_table(scored.answers, file, compression="zstd")


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
