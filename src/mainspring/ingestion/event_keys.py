"""What each event id came with: hashes, followed from the event log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.schema import EVENT_ID
from mainspring.storage.log import Log

Hashes = npt.NDArray[np.uint64]

_GATHERED = 100_000
_RECENT = 1 << 16


class _Known:
    """A sorted map from hash to hash."""

    def __init__(self) -> None:
        self.ids: Hashes = np.empty(0, np.uint64)
        self.keys: Hashes = np.empty(0, np.uint64)

    def find(self, ids: Hashes) -> tuple[npt.NDArray[np.bool_], Hashes]:
        """Whether each is there, and what it maps to."""
        if not len(self.ids):
            return np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.uint64)
        places = np.minimum(self.ids.searchsorted(ids), len(self.ids) - 1)
        return self.ids[places] == ids, self.keys[places]

    def add(self, ids: Hashes, keys: Hashes) -> None:
        """Add what is not there yet."""
        self.ids, self.keys = np.concatenate([self.ids, ids]), np.concatenate([self.keys, keys])
        order = np.argsort(self.ids, kind="stable")
        self.ids, self.keys = self.ids[order], self.keys[order]


class EventKeys:
    """Per event id of a source, the values of some columns when it first came: 16 bytes an event, read from the log when first asked.

    Ids and values are kept as 64-bit hashes: among ten million events, two ids are taken for one with a chance of 3 in a million.
    """

    def __init__(self, log: Log, source: str, columns: Sequence[str]) -> None:
        import duckdb

        self._log = log
        self._source = source
        self._columns = [EVENT_ID, *columns]
        self._offset = 0
        self._engine = duckdb.connect(config={"threads": 1})
        self._old, self._recent = _Known(), _Known()

    def differing(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Where an event id came before, in the log or further up, with other values; of shape ``(len(table),)``."""
        self._follow()
        ids, keys = self._hashes(table.select(self._columns))
        _, first, place = np.unique(ids, return_index=True, return_inverse=True)
        found, held = self._find(ids)
        return np.asarray(keys != np.where(found, held, keys[first[place]]), dtype=np.bool_)

    def _follow(self) -> None:
        gathered: list[pa.Table] = []
        offset, rows = self._offset, 0
        for frame in self._log.read(offset) if offset < self._log.end else ():
            offset = frame.end
            if frame.source != self._source or not set(self._columns) <= set(frame.batch.schema.names):
                continue
            table = pa.table(frame.batch.select(self._columns))
            if gathered and (rows >= _GATHERED or gathered[0].schema != table.schema):
                self._learn(gathered)
                self._offset, gathered, rows = frame.offset, [], 0
            gathered.append(table)
            rows += table.num_rows
        if gathered:
            self._learn(gathered)
        self._offset = offset

    def _learn(self, tables: list[pa.Table]) -> None:
        ids, keys = self._hashes(pa.concat_tables(tables))
        ids, first = np.unique(ids, return_index=True)
        fresh = ~self._find(ids)[0]
        self._recent.add(ids[fresh], keys[first[fresh]])
        if len(self._recent.ids) > _RECENT:
            self._old.add(self._recent.ids, self._recent.keys)
            self._recent = _Known()

    def _find(self, ids: Hashes) -> tuple[npt.NDArray[np.bool_], Hashes]:
        found, held = self._old.find(ids)
        recently, keys = self._recent.find(ids)
        return found | recently, np.where(recently, keys, held)

    def _hashes(self, table: pa.Table) -> tuple[Hashes, Hashes]:
        """The hash of each row's event id, and of its other columns."""
        first, *others = (f'"{name}"' for name in self._columns)
        self._engine.register("facts", table)
        found = self._engine.execute(f"SELECT hash({first}) AS id, hash({', '.join(others)}) AS keys FROM facts").fetchnumpy()
        self._engine.unregister("facts")
        return np.asarray(found["id"], np.uint64), np.asarray(found["keys"], np.uint64)
