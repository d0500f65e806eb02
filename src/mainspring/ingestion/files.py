"""Files of facts: Parquet, and JSON lines (one object a line)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.errors import DataError
from mainspring.ingestion.contract import Unreadable
from mainspring.ingestion.values import NOT_UTF8

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainspring.ingestion.ingest import Ingested, Ingestor

NOT_JSON = "the line is not JSON"
_JSON_LINES = (".jsonl", ".ndjson")
_STEP = 10_000


def ingest_file(ingestor: Ingestor, source: str, path: Path, at: int, progress: Callable[[int, int], None] | None = None) -> Ingested:
    """Ingest a file as one batch of a source; ``at`` is now. ``progress`` gets what is done and the whole, in rows or in bytes.

    Raises:
        DataError: the file is not there, empty, damaged, or of another kind than ``.parquet``, ``.jsonl``, ``.ndjson``; its columns
            cannot be the source's columns; the source is not known. Nothing was appended then.
        StorageError: the log or the quarantine cannot be written.
    """
    place = f"Source '{source}', file {path}"
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(path, page_checksum_verification=True).read()
            table.column_names  # noqa: B018  # raises where a name is no UTF-8
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{place}: it cannot be read as Parquet ({error}). Write it again, or restore it from a copy.") from error
        return ingestor.ingest(source, table, at, progress)
    if path.suffix not in _JSON_LINES:
        raise DataError(f"{place}: '{path.suffix}' is no kind of file that is read here. Use .parquet, .jsonl or .ndjson.")
    try:
        return ingestor.ingest_rows(source, read_lines(path, progress), at, whole=True)
    except OSError as error:
        raise DataError(f"{place}: it cannot be read ({error}).") from error


def read_lines(path: Path, progress: Callable[[int, int], None] | None = None) -> Iterator[Any]:
    """What each line that is not blank holds: any JSON value, or `Unreadable` where it is none."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for number, line in enumerate(file, 1):
            if line.strip():
                yield read_line(line)
            if progress is not None and (number % _STEP == 0):
                progress(file.tell(), size)


def read_line(line: bytes) -> Any:
    """The JSON value of a line, or `Unreadable`."""
    try:
        return json.loads(line.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError:
        return Unreadable(NOT_UTF8, line.decode(errors="backslashreplace").rstrip("\n"))
    except _RepeatedError as error:
        return Unreadable(f"column '{error}' is there twice", line.decode().rstrip("\n"))
    except (ValueError, RecursionError):
        return Unreadable(NOT_JSON, line.decode().rstrip("\n"))


class _RepeatedError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedError(next(name for name in names if names.count(name) > 1))
    return found
