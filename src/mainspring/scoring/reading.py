"""Questions from files, in chunks: Parquet, Arrow, CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.errors import DataError
from mainspring.ingestion.contract import Unreadable
from mainspring.ingestion.files import read_line
from mainspring.ingestion.values import NOT_UTF8
from mainspring.schema import Schema, Type

_BEYOND = "beyond the header"
_BOOLS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows in their order, a table or JSON objects as `Contract` takes them; ``done`` of ``total`` (rows or bytes) are read with it."""

    rows: pa.Table | list[Any]
    done: int
    total: int


def read_chunks(path: Path, schema: Schema, rows: int) -> Iterator[Chunk]:
    """The rows of a file, at most ``rows`` of them at a time: the same chunks whenever it is read.

    A cell of CSV is read as the type of its column in ``schema``, an empty one as null; where it cannot be, it stays text.

    Raises:
        DataError: the file is not there, cannot be read, or is of another kind.
    """
    readers = {".parquet": _parquet, ".arrow": _arrow, ".feather": _arrow, ".jsonl": _lines, ".ndjson": _lines}
    if path.suffix != ".csv" and path.suffix not in readers:
        raise DataError(f"{path}: '{path.suffix}' is no kind of file that is read here. Use .csv, {', '.join(readers)}.")
    try:
        yield from _csv(path, rows, schema) if path.suffix == ".csv" else readers[path.suffix](path, rows)
    except (pa.ArrowException, OSError, csv.Error) as error:
        raise DataError(f"{path}: it cannot be read ({error}). Write it again, or restore it from a copy.") from error


def _parquet(path: Path, rows: int) -> Iterator[Chunk]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        done = 0
        for batch in file.iter_batches(rows):
            done += len(batch)
            yield Chunk(pa.Table.from_batches([batch]), done, file.metadata.num_rows)


def _arrow(path: Path, rows: int) -> Iterator[Chunk]:
    with pa.memory_map(str(path)) as source:
        size = source.size()
        for batch in _batches(source):
            for start in range(0, len(batch), rows):
                yield Chunk(pa.Table.from_batches([batch.slice(start, rows)]), source.tell(), size)


def _batches(source: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    """Of a file or of a stream."""
    with suppress(pa.ArrowInvalid):
        file = pa.ipc.open_file(source)
        return (file.get_batch(number) for number in range(file.num_record_batches))
    source.seek(0)
    return iter(pa.ipc.open_stream(source))


def _lines(path: Path, rows: int) -> Iterator[Chunk]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        values = (read_line(line) for line in iter(file.readline, b"") if line.strip())
        for chunk in _gathered(values, rows):
            yield Chunk(chunk, file.tell(), size)


def _csv(path: Path, rows: int, schema: Schema) -> Iterator[Chunk]:
    types = {field.name: field.type for field in schema.fields}
    with path.open("rb") as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
        size = os.fstat(raw.fileno()).st_size
        reader = csv.DictReader(file, restkey=_BEYOND, strict=True)
        for chunk in _gathered((_typed(row, types) for row in reader), rows):
            yield Chunk(chunk, raw.tell(), size)


def _gathered(values: Iterable[Any], rows: int) -> Iterator[list[Any]]:
    values = iter(values)
    while chunk := list(islice(values, rows)):
        yield chunk


def _typed(row: dict[str, Any], types: dict[str, Type]) -> Any:
    text = ",".join(str(value) for value in row.values())
    if not text.isprintable() and any("\udc80" <= letter <= "\udcff" for letter in text):
        return Unreadable(NOT_UTF8, text.encode(errors="surrogateescape").decode(errors="backslashreplace"))
    return {name: _cell(value, types.get(name)) for name, value in row.items()}


def _cell(text: Any, type_: Type | None) -> Any:
    if text in ("", None):
        return None
    with suppress(ValueError):
        if type_ == Type.FLOAT:
            return float(text)
        if type_ == Type.INT:
            return int(text)
    return _BOOLS.get(text.lower(), text) if type_ == Type.BOOL else text
