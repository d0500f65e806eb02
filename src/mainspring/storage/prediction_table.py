"""Predictions as Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.columns import to_json
from mainspring.errors import StorageError
from mainspring.schema import Schema, Type, arrow_type
from mainspring.storage.durable import replacing
from mainspring.storage.prediction_rows import Prediction, PredictionColumns

Mask = npt.NDArray[np.bool_]
_REASONS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
_TEXT, _NUMBER, _INSTANT = pa.string(), pa.float64(), pa.int64()
_FIXED = {
    "request_id": _TEXT,
    "as_of": _INSTANT,
    "answered_at": _INSTANT,
    "system": _TEXT,
    "version": _TEXT,
    "variant": _TEXT,
    "answered_by": _TEXT,
    "score": _NUMBER,
    "low": _NUMBER,
    "high": _NUMBER,
    "reasons": _REASONS,
    "latency_us": _NUMBER,
    "shadow_version": _TEXT,
    "shadow_score": _NUMBER,
}


def to_table(predictions: Sequence[Prediction], columns: PredictionColumns | None, place: str) -> pa.Table:
    """A row for each prediction: the fixed columns, ``request.<name>``, ``feature.<name>`` and ``status.<name>`` (int8) of ``columns``.

    Raises:
        StorageError: a value does not fit the type of its column; ``place`` says where.
    """
    arrays: dict[str, Any] = {}
    for name, type_ in _FIXED.items():
        values = list(map(attrgetter(name), predictions))
        arrays[name] = _reasons(values) if name == "reasons" else pa.array(values, type_)
    if columns is None:
        return pa.table(arrays)
    arrays |= _transposed("request", columns.request, [row.request for row in predictions], place)
    arrays |= _transposed("feature", columns.features, [row.features for row in predictions], place)
    width = len(columns.features.fields)
    statuses = np.frombuffer(b"".join([row.statuses for row in predictions]), np.int8).reshape(len(predictions), width)
    arrays |= {f"status.{field.name}": pa.array(statuses[:, i]) for i, field in enumerate(columns.features.fields)}
    return pa.table(arrays)


def union(tables: Sequence[pa.Table], place: str) -> pa.Table:
    """All rows under all columns, null where a table lacks one; with no tables, the fixed columns without rows.

    Raises:
        StorageError: a column has types that no one type can hold.
    """
    if not tables:
        return to_table([], None, place)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise StorageError(f"{place}: segments disagree about a column's type ({error}). Give the changed column a new name.") from error


def read_parquet(path: Path) -> pa.Table:
    """The table that a segment was turned into.

    Raises:
        StorageError: the file is damaged or gone.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"Prediction log, {path}: cannot be read ({error}). Restore this file from a copy.") from error


def erase(file: Path, chosen: Callable[[pa.Table], Mask], mentions: Callable[[pa.ChunkedArray], Mask]) -> int:
    """Make the chosen rows of a Parquet file null throughout, and the served texts that are mentioned; the number of the former.

    Raises:
        StorageError: the file is damaged or gone.
    """
    rows = read_parquet(file)
    erased = chosen(rows) & rows.column("request_id").is_valid().to_numpy()
    kept = rows.take(pa.array(np.arange(len(rows)), mask=erased))
    for text in [field.name for field in rows.schema if field.name.startswith("feature.") and field.type == _TEXT]:
        hit = mentions(kept.column(text))
        for name in (text, text.replace("feature.", "status.", 1)) if hit.any() else ():
            column = pc.if_else(pa.array(~hit), kept.column(name), None)
            kept = kept.set_column(kept.schema.get_field_index(name), name, column)
    if not kept.equals(rows):
        with replacing(file) as target:
            pq.write_table(kept, target, compression="zstd")
    return int(erased.sum())


def left(rows: pa.Table) -> pa.Table:
    """The rows but the erased ones."""
    requests = rows.column("request_id")
    return rows.filter(requests.is_valid()) if requests.null_count else rows


def _transposed(prefix: str, schema: Schema, rows: list[tuple[Any, ...]], place: str) -> dict[str, Any]:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema.fields)
    arrays = {}
    for field, column in zip(schema.fields, columns, strict=True):
        try:
            values = to_json(column) if field.type == Type.JSON else column
            arrays[f"{prefix}.{field.name}"] = pa.array(values, arrow_type(field.type))
        except (pa.ArrowException, OverflowError) as error:
            raise StorageError(
                f"{place}, column '{prefix}.{field.name}': a value is not of type {field.type} ({error}). Correct what writes it."
            ) from error
    return arrays


def _reasons(rows: list[tuple[tuple[str, float], ...]]) -> pa.Array:
    pairs = list(chain.from_iterable(rows))
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    values = pa.array([value for _, value in pairs], _NUMBER)
    fields = [pa.array([name for name, _ in pairs], _TEXT), values]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(fields, fields=list(_REASONS.value_type)), type=_REASONS)
