"""Training sets: what was known at each question's instant, and the truth as far as it has come.

Features are built as known at each question, so that a row, once built, never changes, unless an event comes that should have
been there before. Columns are therefore kept by the content of what they follow from, and a set that grows computes only its
new rows. Labels are looked up anew for each set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import mainspring
from mainspring.clock import format_instant
from mainspring.columns import Array, to_arrow
from mainspring.errors import TrainingError
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.schema import EVENT_ID, EVENT_TIME, Field, Type
from mainspring.spec import System
from mainspring.spec.splits import to_dict
from mainspring.spec.versions import feature_versions, origins
from mainspring.storage.tables import Tables
from mainspring.training.sets import Lazy, Sets, Stretch, address_of
from mainspring.training.sources import Sources

FORMAT = 1
STRETCH_ROWS = 500_000
"""The questions that are built at a time: what bounds the memory that building takes, besides the facts that they look back on."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled rows in order of ``as_of``: request and feature columns, ``as_of`` and ``label`` of shape ``(n,)``.

    ``manifest`` says what it was built from; `hash` follows from that and the values. A set from disk reads a column when it is
    first asked for.
    """

    columns: Mapping[str, Array]
    as_of: npt.NDArray[np.int64]
    label: npt.NDArray[np.float64]
    label_known_at: npt.NDArray[np.int64]
    manifest: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.as_of)

    @property
    def hash(self) -> str:
        """SHA-256 over the manifest, whose address names all that the columns follow from, and over instants and labels."""
        digest = hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode())
        for values in (self.as_of, self.label, self.label_known_at):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def take(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Dataset:
        """The rows of these numbers, or those where a mask of shape ``(n,)`` is true."""
        columns = Lazy(list(self.columns), lambda name: self.columns[name][chosen])
        return Dataset(columns, self.as_of[chosen], self.label[chosen], self.label_known_at[chosen], self.manifest)


@dataclass(frozen=True, slots=True)
class DatasetBuilder:
    """Builds the training sets of a System and keeps them in ``folder``, by default ``datasets`` beside the tables.

    A set is found by its address, which follows from all that its values follow from: versions of the features, label, from and
    until, and the content of every source as far as it was known until then. Of a set that is new only those columns of those
    stretches are computed that no set before had.
    """

    system: System
    tables: Tables
    folder: Path | None = None

    def newest(self) -> int:
        """The instant of the newest question in the tables.

        Raises:
            TrainingError: there is none.
        """
        return int(_times(self.system, self.tables)[-1])

    def build(self, start: int | None, now: int, progress: Progress | None = None) -> Dataset:
        """Requests from ``start`` (None for all) to ``now`` whose label was known by ``now``.

        Raises:
            TrainingError: there are no such rows.
        """
        sets = Sets(self.folder or self.tables.path.with_name("datasets"))
        built = _Build(self.system, self.tables, sets, start, now)
        address = built.address
        if address not in sets.addresses():
            built.write(address, progress)
        return load(sets, address, self.system)


def load(sets: Sets, address: str, system: System) -> Dataset:
    """A set from disk; its columns are those of the request and the features of ``system``.

    Raises:
        StorageError: the set is not there, or damaged.
    """
    manifest, stretches = sets.read(address)
    rows = sets.rows(address, stretches)
    taken = pa.concat_tables(rows)
    as_of, known_at = (np.asarray(taken.column(name).to_numpy(), dtype=np.int64) for name in ("as_of", "label_known_at"))
    whole = {**manifest, "split": to_dict(system.model.held_out)}
    return Dataset(sets.load(stretches, rows, _types(system)), as_of, from_float(taken.column("label")), known_at, whole)


class _Build:
    """One set on its way: its address, and what is still to compute."""

    def __init__(self, system: System, tables: Tables, sets: Sets, start: int | None, now: int) -> None:
        self._system, self._tables, self._sets, self._start, self._now = system, tables, sets, start, now
        self._store = OfflineStore(system, tables.files)
        self._sources = Sources(tables.files)
        self._versions = feature_versions(system.features, system.request)
        self._cuts = self._cut()
        names = {source.name for source in (system.request, *system.sources)}
        self._known = {name: self._sources.digests(name, [*self._cuts[1:], now + 1]) for name in sorted(names)}
        self._asked = self._sources.digests(system.request.name, self._cuts, column=EVENT_TIME)

    @property
    def address(self) -> str:
        """What names the set."""
        label = self._system.label
        truth = [label.source.name, label.column, label.on, label.matures_after, label.otherwise]
        return address_of([FORMAT, self._sources.engine, self._versions, truth, self._start, self._now, self._described()])

    def write(self, address: str, progress: Progress | None) -> None:
        """Compute what is missing, stretch by stretch, then the set.

        Raises:
            TrainingError: no question has a label.
        """
        stretches, taken, nulls = [], [], dict.fromkeys(_types(self._system), 0)
        views = len(self._system.views)
        for number, (begin, end) in enumerate(zip(self._cuts, self._cuts[1:], strict=False)):
            questions = self._questions(begin, end)
            advance = None if progress is None else _shifted(progress, number * views, (len(self._cuts) - 1) * views)
            files = self._columns(number, questions, begin, end, advance)
            rows = self._rows(questions)
            stretches.append(Stretch(begin, end, len(rows), files))
            taken.append(rows)
            for name, file in files.items():
                nulls[name] += self._sets.column(file).take(rows.column("row")).null_count
        if not sum(map(len, taken)):
            raise self._nothing()
        self._sets.write(address, self._manifest(address, pa.concat_tables(taken), nulls), stretches, taken.__getitem__)

    def _cut(self) -> list[int]:
        """Where the questions are cut: as in the newest set, and what is new by `STRETCH_ROWS`."""
        times = _times(self._system, self._tables)
        times = times[times < self._now]
        times = times if self._start is None else times[times >= self._start]
        if not len(times):
            raise self._nothing()
        cuts = [int(times[0])]
        for address in self._sets.addresses()[-1:]:
            before = self._sets.read(address)[1]
            cuts = [at for at in (before[0].start, *(one.end for one in before)) if at <= self._now] or cuts
            if cuts[0] > times[0]:
                cuts = [int(times[0])]
            cuts = [at for at, following in zip(cuts, [*cuts[1:], None], strict=True) if following is None or following > times[0]]
        rest = times[times.searchsorted(cuts[-1], "left") :]
        cuts += [int(at) for at in rest[STRETCH_ROWS::STRETCH_ROWS] if at > cuts[-1]]
        return cuts if cuts[-1] == self._now else [*cuts, self._now]

    def _questions(self, begin: int, end: int) -> pa.Table:
        filters = [(EVENT_TIME, ">=", begin), (EVENT_TIME, "<", end)]
        files = self._tables.files(self._system.request.name)
        table = pa.concat_tables([pq.read_table(file, filters=filters) for file in files], promote_options="permissive")
        table = table.sort_by([(EVENT_TIME, "ascending"), (EVENT_ID, "ascending")])
        return table.append_column(AS_OF, table.column(EVENT_TIME)).combine_chunks()

    def _columns(self, number: int, questions: pa.Table, begin: int, end: int, progress: Progress | None) -> dict[str, str]:
        """The files of a stretch's columns, written where they were missing."""
        base = [FORMAT, self._sources.engine, begin, end, self._asked[number + 1].minus(self._asked[number]).to_list()]
        request = self._system.request
        files = {name: address_of([*base, "request", name, field.type]) for name, field in _fields(request.columns.fields)}
        for name, file in files.items():
            if not self._sets.has(file):
                self._sets.keep(file, questions.column(name))
        sources = {one.name: self._origins(one, number) for one in self._system.features}
        features = {one.name: address_of([*base, self._versions[one.name], sources[one.name]]) for one in self._system.features}
        missing = [name for name, file in features.items() if not self._sets.has(file)]
        if missing:
            built = self._store.features(questions, known_until=self._now, progress=progress, only=missing)
            for name, values in built.items():
                self._sets.keep(features[name], to_arrow(values, Field(name, _types(self._system)[name])))
        return {**files, **features}

    def _origins(self, feature: Any, number: int) -> list[Any]:
        """What a feature's sources held that was known before the end of a stretch."""
        columns = origins(feature, self._system.features, self._system.request)
        return [[name, self._known[name][number].to_list()] for name in sorted({column.split(".")[0] for column in columns})]

    def _rows(self, questions: pa.Table) -> pa.Table:
        labels = self._store.labels(questions, known_until=self._now)
        as_of = questions.column(AS_OF).to_numpy()
        known = ~np.isnan(from_float(labels.column("label")))
        known &= as_of >= (as_of if self._start is None else self._start)
        taken = pa.table({"row": np.arange(len(questions)), "as_of": as_of, "label": labels.column("label")})
        return taken.append_column("label_known_at", labels.column("label_known_at").fill_null(0)).filter(pa.array(known))

    def _manifest(self, address: str, taken: pa.Table, nulls: Mapping[str, int]) -> dict[str, Any]:
        label = from_float(taken.column("label"))
        return {
            "address": address,
            "created_by": mainspring.__version__,
            "system": self._system.hash,
            "features": self._system.feature_hashes,
            "from": self._start,
            "until": self._now,
            "log_position": self._tables.position,
            "rows": len(taken),
            "sources": self._described(),
            "nulls": {name: count / len(taken) for name, count in nulls.items()},
            "label": {
                "mean": float(label.mean()),
                "deviation": float(label.std()),
                "least": float(label.min()),
                "most": float(label.max()),
            },
        }

    def _described(self) -> dict[str, Any]:
        return {name: digests[-1].to_dict() for name, digests in self._known.items()}

    def _nothing(self) -> TrainingError:
        return TrainingError(
            f"System '{self._system.name}': no request before {format_instant(self._now)} has a label yet. Ingest more history."
        )


def _times(system: System, tables: Tables) -> npt.NDArray[np.int64]:
    """The instants of all questions, rising."""
    files = tables.files(system.request.name)
    if not files:
        raise TrainingError(f"System '{system.name}': source '{system.request.name}' has no facts. Ingest some first.")
    return np.sort(np.concatenate([pq.read_table(file, columns=[EVENT_TIME]).column(0).to_numpy() for file in files]))


def from_float(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A float column with NaN for null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _types(system: System) -> dict[str, Type]:
    request = {name: field.type for name, field in _fields(system.request.columns.fields)}
    return {**request, **{feature.name: feature.type for feature in system.features}}


def _fields(fields: tuple[Field, ...]) -> list[tuple[str, Field]]:
    return [(field.name, field) for field in fields]


def _shifted(progress: Progress, done: int, total: int) -> Progress:
    return lambda one, _: progress(done + one, total)
