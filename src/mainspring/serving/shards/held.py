"""What one shard holds: of each table the stripes that are its own, loaded when they are first asked for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mainspring.errors import StorageError
from mainspring.models.large_tables import LargeTable, Numbers, Vectors, shard_of
from mainspring.storage.blobs import Blobs

KEEP_SECONDS = 60.0
"""How long tables stay that no connection has anything to do with: whoever starts again finds them."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """A table's stripes in one shard, one after another; ``starts`` says where each begins, -1 for those of other shards."""

    table: LargeTable
    vectors: Vectors
    starts: Numbers

    @classmethod
    def load(cls, table: LargeTable, shard: int, shards: int, stores: Sequence[Blobs]) -> Part:
        """Read the stripes that belong to a shard, of which no other is ever read.

        Raises:
            StorageError: one is in none of the stores, or was altered.
        """
        stripes = np.arange(len(table.stripes))
        own = [int(stripe) for stripe in stripes[shard_of(stripes, len(stripes), shards) == shard]]
        vectors = np.empty((sum(table.rows_in(stripe) for stripe in own), table.width), np.float32)
        starts, end = np.full(len(stripes), -1), 0
        for stripe in own:
            starts[stripe], begin, end = end, end, end + table.rows_in(stripe)
            vectors[begin:end] = _read(table, stripe, stores)
        return cls(table, vectors, starts)

    def rows(self, rows: Numbers) -> Vectors:
        """The vectors of rows.

        Raises:
            ValueError: one is not in this shard.
        """
        stripes = len(self.table.stripes)
        starts = self.starts[rows % stripes]
        if len(rows) and (starts.min() < 0 or rows.max() >= self.table.rows):
            raise ValueError(f"table '{self.table.name}' was asked for rows that are not in this shard")
        found: Vectors = self.vectors[starts + rows // stripes]
        return found


class _Kept(NamedTuple):
    parts: tuple[Part, ...]
    used: float


class Held:
    """Tables by their fingerprint, safe to use from several threads; ``monotonic`` gives seconds that only go forward."""

    def __init__(self, shard: int, shards: int, stores: Sequence[Blobs], monotonic: Callable[[], float]) -> None:
        self._shard, self._shards, self._stores, self._monotonic = shard, shards, stores, monotonic
        self._lock = threading.Lock()
        self._kept: dict[bytes, _Kept] = {}
        self._loading: set[bytes] = set()
        self._failed: dict[bytes, str] = {}

    def get(self, tables: bytes) -> tuple[Part, ...] | None:
        """The parts of tables, None where they are not held."""
        kept = self._kept.get(tables)
        return None if kept is None else kept.parts

    def load(self, fingerprint: bytes, tables: Sequence[LargeTable]) -> str | None:
        """Load tables in a thread, once however many ask; why the last loading of them failed, told once, None if it did not."""
        with self._lock:
            failed = self._failed.pop(fingerprint, None)
            if failed is None and fingerprint not in self._loading and fingerprint not in self._kept:
                self._loading.add(fingerprint)
                threading.Thread(target=self._load, args=(fingerprint, tuple(tables)), name="tables", daemon=True).start()
            return failed

    def sweep(self, used: set[bytes]) -> None:
        """Let go of what was not among ``used`` for `KEEP_SECONDS`."""
        now = self._monotonic()
        with self._lock:
            kept = {name: one._replace(used=now) if name in used else one for name, one in self._kept.items()}
            self._kept = {name: one for name, one in kept.items() if now - one.used <= KEEP_SECONDS}

    def _load(self, fingerprint: bytes, tables: tuple[LargeTable, ...]) -> None:
        try:
            parts = tuple(Part.load(table, self._shard, self._shards, self._stores) for table in tables)
        except Exception as error:
            _log.exception("Tables cannot be loaded")
            with self._lock:
                self._loading.discard(fingerprint)
                self._failed[fingerprint] = str(error)
            return
        with self._lock:
            self._loading.discard(fingerprint)
            self._kept[fingerprint] = _Kept(parts, self._monotonic())


def _read(table: LargeTable, stripe: int, stores: Sequence[Blobs]) -> Vectors:
    digest = table.stripes[stripe]
    store = next((one for one in stores if one.has(digest)), None)
    if store is None:
        raise StorageError(f"Table '{table.name}': stripe {stripe} ({digest[:12]}) is in no store of this shard. Name the registry's.")
    return table.vectors(stripe, store.get(digest))
