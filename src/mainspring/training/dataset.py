"""Training sets: what was known at each question's instant, and the truth as far as it has come.

Features are built as known at each question, so that a row, once built, never changes; `DatasetBuilder` builds each row
once and appends. Labels are looked up anew each time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.clock import format_instant
from mainspring.columns import from_arrow
from mainspring.errors import TrainingError
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.schema import EVENT_TIME
from mainspring.spec import System
from mainspring.storage.tables import Tables

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled rows in order of ``as_of``: request and feature columns, ``as_of`` and ``label`` of shape ``(n,)``.

    ``manifest`` says what it was built from; `hash` follows from that and the values.
    """

    columns: Columns
    as_of: npt.NDArray[np.int64]
    label: npt.NDArray[np.float64]
    label_known_at: npt.NDArray[np.int64]
    manifest: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.as_of)

    @property
    def hash(self) -> str:
        """SHA-256 over manifest and values."""
        digest = hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode())
        for name in sorted(self.columns):
            values = self.columns[name]
            digest.update(name.encode())
            digest.update("\0".join(map(str, values)).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes())
        digest.update(np.ascontiguousarray(self.label).tobytes())
        return digest.hexdigest()

    def where(self, chosen: npt.NDArray[np.bool_]) -> Dataset:
        """The rows where ``chosen`` of shape ``(n,)`` is true."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return Dataset(columns, self.as_of[chosen], self.label[chosen], self.label_known_at[chosen], self.manifest)


@dataclass(slots=True)
class DatasetBuilder:
    """Builds the training set of a System as of an instant, keeping the feature rows it has built."""

    system: System
    tables: Tables
    _questions: list[pa.Table] = field(default_factory=list)
    _features: list[Columns] = field(default_factory=list)
    _until: int | None = None

    def build(self, start: int | None, now: int, progress: Callable[[int, int], None] | None = None) -> Dataset:
        """Requests from ``start`` (None for all) to ``now`` whose label was known by ``now``.

        Raises:
            TrainingError: there are no such rows.
        """
        self._extend(start, now, progress)
        questions = pa.concat_tables(self._questions)
        store = OfflineStore(self.system, self.tables.files)
        labels = store.labels(questions, known_until=now)
        as_of = questions.column(AS_OF).to_numpy()
        known = ~np.isnan(from_float(labels.column("label"))) & (as_of < now)
        if start is not None:
            known &= as_of >= start
        if not known.any():
            raise TrainingError(
                f"System '{self.system.name}': no request before {format_instant(now)} has a label yet. Ingest more history."
            )
        columns = {name: np.concatenate([part[name] for part in self._features]) for name in self._features[0]}
        known_at = labels.column("label_known_at").fill_null(0).to_numpy()
        full = Dataset(columns, as_of, from_float(labels.column("label")), known_at, self._manifest(start, now, int(known.sum())))
        return full.where(known)

    def _extend(self, start: int | None, now: int, progress: Callable[[int, int], None] | None) -> None:
        since = self._until if self._until is not None else start
        questions = self._requests(since, now)
        if len(questions) or not self._questions:
            features = OfflineStore(self.system, self.tables.files).features(questions, known_until=now, progress=progress)
            request = {
                name: from_arrow(questions.column(name), self.system.request.columns[name].type)
                for name in self.system.request.columns.names
            }
            self._questions.append(questions)
            self._features.append({**request, **features})
        self._until = now

    def _requests(self, since: int | None, until: int) -> pa.Table:
        source = self.system.request
        files = self.tables.files(source.name)
        if not files:
            raise TrainingError(f"System '{self.system.name}': source '{source.name}' has no facts. Ingest some first.")
        filters = [(EVENT_TIME, "<", until)] + ([] if since is None else [(EVENT_TIME, ">=", since)])
        table = pa.concat_tables([pq.read_table(file, filters=filters) for file in files]).sort_by(EVENT_TIME)
        return table.append_column(AS_OF, table.column(EVENT_TIME)).combine_chunks()

    def _manifest(self, start: int | None, now: int, rows: int) -> dict[str, Any]:
        return {
            "system": self.system.hash,
            "features": self.system.feature_hashes,
            "from": start,
            "until": now,
            "log_position": self.tables.position,
            "rows": rows,
        }


def from_float(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A float column with NaN for null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
