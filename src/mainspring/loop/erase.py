"""Erasing a key everywhere: every record and every derived place, in an order that any kill may interrupt.

The event log goes first, so that nothing derived from it can bring the key back; then what is derived: tables, online store,
training sets; then answers and quarantine. Before the first row goes, what will go is counted and kept beside the salted hash of
the value: the same call again goes on from there. Last, every place is looked through again.
"""

from __future__ import annotations

import json
import mmap
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.clock import Clock
from mainspring.errors import DeclarationError, StorageError, did_you_mean
from mainspring.feature_store.online import OnlineStore
from mainspring.ingestion.quarantine import Quarantine, Quarantined
from mainspring.loop.receipt import Begun, Place, Receipt, begin, finish
from mainspring.model_registry.registry import open_registry
from mainspring.schema import EVENT_TIME, Type
from mainspring.spec import System
from mainspring.storage.frames import Chosen
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.stores import open_key_value, open_log, split_shards, with_shards
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.sets import Sets

Mask = npt.NDArray[np.bool_]
Progress = Callable[[str], None]
LONG_ENOUGH = 6
"""Characters from which on a text is looked for as bytes in every other file: a shorter one is found everywhere."""


class Erasable(Protocol):
    """A log that can forget events."""

    def erase(self, chosen: Chosen) -> int:
        """Erase the chosen events, all others keeping their numbers; how many there were."""
        ...


@dataclass(frozen=True, slots=True)
class Key:
    """What is asked for: ``columns`` of each source, and of the request, that hold the key; ``values`` typed for each."""

    column: str
    text: str
    columns: Mapping[str, tuple[str, ...]]
    request: tuple[str, ...]
    value: Any

    @classmethod
    def of(cls, system: System, column: str, text: str) -> Key:
        """The columns named ``column``, and those that views match to them.

        Raises:
            DeclarationError: no source has such a column, or it is neither text nor a whole number, or the value is none.
        """
        names = {column}
        for view in system.views:
            for of_source, of_request in zip(view.columns, view.on, strict=True):
                names |= {of_source, of_request} if column in (of_source, of_request) else set()
        sources = [system.request, *system.sources]
        columns = {source.name: tuple(name for name in source.columns.names if name in names) for source in sources}
        if column not in {name for source in sources for name in source.columns.names}:
            known = {name for source in sources for name in source.columns.names}
            raise DeclarationError(f"System '{system.name}': no source has a column '{column}'.{did_you_mean(column, known)}")
        types = {source.columns[name].type for source in sources for name in columns[source.name]}
        if len(types) != 1 or not types <= {Type.STR, Type.INT}:
            raise DeclarationError(f"System '{system.name}': '{column}' is {' and '.join(sorted(types))}. Keys are text or whole numbers.")
        try:
            value = int(text) if types == {Type.INT} else text
        except ValueError as error:
            raise DeclarationError(f"System '{system.name}': '{column}' is a whole number, and {text!r} is none.") from error
        return cls(column, text, {name: found for name, found in columns.items() if found}, columns[system.request.name], value)

    def among(self, table: pa.Table | pa.RecordBatch, names: tuple[str, ...]) -> Mask:
        """The rows that hold the key in one of the columns ``names``, as far as they are there."""
        hit = np.zeros(len(table), dtype=np.bool_)
        for name in set(names) & set(table.schema.names):
            column = table.column(name)
            hit |= np.asarray(pc.equal(column, pa.scalar(self.value, column.type)).fill_null(False).to_numpy(zero_copy_only=False))
        return hit

    def mentions(self, column: pa.ChunkedArray) -> Mask:
        """Where a served text is the key, or a served list or map holds it; whole numbers are not looked for."""
        if not isinstance(self.value, str):
            return np.zeros(len(column), dtype=np.bool_)
        written = json.dumps(self.value, ensure_ascii=False)
        hit = pc.or_(pc.equal(column, self.value), pc.match_substring(column, written))
        return np.asarray(hit.fill_null(False).to_numpy())


@dataclass(slots=True)
class Eraser:
    """Erases keys of one System in a workspace.

    Servers may run meanwhile: appends wait for a segment at a time, online rows are replaced in one transaction. What a server
    alone can let go of (answers in the segment that it writes, stale pages of its store) is left, is counted as left, and goes
    when the same is asked again after it has stopped.
    """

    system: System
    space: Workspace
    log: Any
    clock: Clock
    progress: Progress = lambda _: None
    _tables: Tables = field(init=False)
    _predictions: PredictionLog = field(init=False)
    _quarantine: Quarantine = field(init=False)
    _sets: Sets = field(init=False)

    def __post_init__(self) -> None:
        self._tables = Tables(self.space.tables)
        self._predictions = PredictionLog(self.space.predictions)
        self._quarantine = Quarantine(self.space.quarantine)
        self._sets = Sets(self.space.datasets)

    def erase(self, column: str, text: str) -> Receipt:
        """Erase everything that holds ``text`` in ``column``, and write the receipt.

        Raises:
            DeclarationError: there is no such column, or the value is not of its type.
            StorageError: the log cannot erase, or a place cannot be read or written: ask again, and it goes on.
        """
        key = Key.of(self.system, column, text)
        if not hasattr(self.log, "erase"):
            raise StorageError(
                f"System '{self.system.name}': the event log {type(self.log).__name__} cannot erase single events, so nothing was erased: "
                "what is derived from it would bring the key back. Let its retention run out, or move the events to a log on disk."
            )
        begun = begin(self.space.receipts, self.system.name, column, text, lambda: self._count(key), self._span(key), self.clock)
        self.progress("event log")
        self.log.erase(lambda source, batch: key.among(batch, key.columns.get(source, ())))
        self.progress("tables")
        for source, names in key.columns.items():
            self._tables.erase(source, lambda rows, names=names: key.among(rows, names))  # type: ignore[misc]
        self.progress("online store")
        clean = self._rebuild([source for source in key.columns if begun.counts.get(f"events of {source}")])
        self.progress("training sets, answers, quarantine")
        self._sets.clear()
        self._predictions.erase(lambda rows: key.among(rows, self._asked(key)), key.mentions)
        for source in key.columns:
            self._quarantine.erase(source, lambda row, source=source: self._rejected(key, source, row))  # type: ignore[misc]
        self.progress("looking again")
        return finish(self.space.receipts, begun, self._places(key, begun, clean), self._models(begun, key), self.clock)

    def _count(self, key: Key) -> dict[str, int]:
        """The rows that hold the key, place by place."""
        counts = {f"events of {source}": 0 for source in key.columns}
        for frame in self.log.read():
            if frame.source in key.columns:
                counts[f"events of {frame.source}"] += int(key.among(frame.batch, key.columns[frame.source]).sum())
        for source, names in key.columns.items():
            parts = sorted((self.space.tables / source).glob("*.parquet"))
            counts[f"table {source}"] = sum(int(key.among(pq.read_table(part, partitioning=None), names).sum()) for part in parts)
        store = open_key_value(self.space.online_url)
        counts["online rows"] = OnlineStore(self.system, store).holding(key.column, key.value)
        store.close()
        counts["rows of training sets"] = self._sets.holding(key.request, key.value)
        answers = self._predictions.read()[0] if self.space.predictions.exists() else pa.table({})
        counts["answers"] = int(key.among(answers, self._asked(key)).sum())
        texts = [answers.column(one.name) for one in answers.schema if one.name.startswith("feature.") and one.type == pa.string()]
        counts["values served to others that name it"] = sum(int(key.mentions(text).sum()) for text in texts)
        counts["quarantine"] = sum(self._rejected(key, source, row) for source in key.columns for row in self._quarantine.kept(source))
        return counts

    def _places(self, key: Key, begun: Begun, clean: bool) -> tuple[Place, ...]:
        left = self._count(key)
        places = [Place(name, max(begun.counts.get(name, 0) - left[name], 0), left[name]) for name in left]
        places.append(Place("stale pages of the online store", 0, 0 if clean else 1))
        return (*places, Place("files with the value in plain", 0, self._files(key, clean)))

    def _files(self, key: Key, clean: bool) -> int:
        """How many files outside the registry hold the value as bytes; none are looked for where it is a number or short."""
        if not isinstance(key.value, str) or len(key.text) < LONG_ENOUGH:
            return 0
        apart = {self.space.registry} if clean else {self.space.registry, self.space.online}
        files = [file for file in self.space.path.rglob("*") if file.is_file() and apart.isdisjoint(file.parents)]
        return sum(_holds(file, key.text.encode()) for file in files)

    def _rebuild(self, sources: list[str]) -> bool:
        """Fold the views over ``sources`` again, and put them in the old ones' place; whether the store's file is clean."""
        scratch = self.space.path / "online.rebuild"
        shutil.rmtree(scratch, ignore_errors=True)
        url = self.space.online_url
        store, side = open_key_value(url), open_key_value(with_shards(f"lmdb:{scratch}", split_shards(url)[1]))
        try:
            if sources:
                OnlineStore(self.system, store).rebuild(OnlineStore(self.system, side, sources=sources), self.log)
            return store.vacuum()
        finally:
            side.close()
            store.close()
            shutil.rmtree(scratch)

    def _span(self, key: Key) -> Callable[[], tuple[int, int] | None]:
        def span() -> tuple[int, int] | None:
            times = [
                frame.batch.column(EVENT_TIME).to_numpy()[key.among(frame.batch, key.columns[frame.source])]
                for frame in self.log.read()
                if frame.source in key.columns
            ]
            found = np.concatenate([np.empty(0, dtype=np.int64), *times])
            return (int(found.min()), int(found.max())) if len(found) else None

        return span

    def _models(self, begun: Begun, key: Key) -> tuple[dict[str, Any], ...]:
        """The models whose training sets reach over an erased event, and whether they hold the value itself as a category."""
        if begun.span is None or not self.space.has_registry:
            return ()
        registry = open_registry(self.space.registry_url)
        try:
            datasets = {one.id: one for one in registry.versions("dataset", self.system.name)}
            found = []
            pruned = registry.pruned(self.system.name)
            for model in registry.versions("model", self.system.name):
                dataset = datasets.get(model.manifest["dataset"])
                if dataset is None or not _reaches(dataset.manifest, begun.span):
                    continue
                kept = [] if model.id in pruned else [name for name in model.artifacts if name != "system.json"]
                artifacts = [registry.artifact(model, name) for name in kept]
                holds = isinstance(key.value, str) and any(holds_value(artifact, key.text) for artifact in artifacts)
                found.append({"model": model.id, "dataset": dataset.id, "dataset_hash": dataset.manifest["hash"], "holds_value": holds})
            return tuple(found)
        finally:
            registry.close()

    def _asked(self, key: Key) -> tuple[str, ...]:
        return tuple(f"request.{name}" for name in key.request)

    def _rejected(self, key: Key, source: str, row: Quarantined) -> bool:
        return any(str(row.values.get(name)) == key.text for name in key.columns[source])


def erase(system: System, space: Workspace, column: str, text: str, clock: Clock, progress: Progress = lambda _: None) -> Receipt:
    """Erase a key from a workspace; see `Eraser.erase`."""
    return Eraser(system, space, open_log(space.events_url), clock, progress).erase(column, text)


def _holds(file: Path, data: bytes) -> bool:
    if not file.stat().st_size:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(data) >= 0


def _reaches(manifest: Mapping[str, Any], span: tuple[int, int]) -> bool:
    start = manifest["from"]
    return bool(manifest["until"] > span[0] and (start is None or start <= span[1]))


def holds_value(artifact: bytes, value: str) -> bool:
    """Whether a model's file holds a value as text of JSON, or in the name of a slice."""
    return re.search(b'("| = )' + re.escape(value.encode()) + b'("| and | \\|)', artifact) is not None
