"""A job of scoring, the chunks that it is cut into, and what is done with one of them, wherever that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow.parquet as pq

from mainspring.schema import Schema
from mainspring.scoring.reading import Chunk, read_chunks
from mainspring.scoring.scorer import Chain, Scorer, Where
from mainspring.storage.durable import replacing


class Job(msgspec.Struct, frozen=True):
    """What is to be scored, by what: kept beside the chunks, so that only the same job goes on. ``system`` is the declaration's hash."""

    source: str
    size: int
    modified: int
    which: str | None
    where: Where
    rows: int
    system: str
    chain: Chain

    def chunks(self, schema: Schema) -> Iterator[Numbered]:
        """The chunks of the file in order."""
        first = 0
        for number, chunk in enumerate(read_chunks(Path(self.source), schema, self.rows)):
            yield Numbered(number, first, chunk)
            first += len(chunk.rows)


class Numbered(NamedTuple):
    """A chunk, its number, and that of its first row."""

    number: int
    first: int
    chunk: Chunk


def score_chunk(scorer: Scorer, parts: Path, given: Numbered) -> None:
    """Score a chunk, unless that is done, and write what came of it: the answers last, for where they are, the chunk is done."""
    part = part_of(parts, given.number)
    if part.exists():
        return
    scored = scorer.score(given.chunk, given.first)
    with replacing(part.with_suffix(".jsonl")) as file:
        file.writelines(json.dumps(one, default=str).encode() + b"\n" for one in scored.rejected)
    with replacing(part) as file:
        pq.write_table(scored.answers, file, compression="zstd")


def part_of(parts: Path, number: int) -> Path:
    """Where the answers to the chunk of that number are, once it is done."""
    return parts / f"{number:06d}.parquet"
