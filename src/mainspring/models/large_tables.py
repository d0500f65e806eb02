"""Tables of vectors too large for every process to hold: stored in stripes, which shards share out among them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
_STRIPE = re.compile(r"(^|\.)net\.[^/]+\.\d{5}$")


@dataclass(frozen=True, slots=True)
class LargeTable:
    """A table of ``rows`` vectors of ``width`` float32. Row ``r`` is in stripe ``r % n`` of its ``n`` stripes, at place ``r // n``.

    Neighbours are in different stripes, so that categories numbered by their frequency, the most frequent first, burden all of them
    alike. ``stripes`` are the SHA-256 of each stripe's bytes: its rows one after another, little-endian.
    """

    name: str
    rows: int
    width: int
    stripes: tuple[str, ...]

    def rows_in(self, stripe: int) -> int:
        """How many rows a stripe has."""
        return len(range(stripe, self.rows, len(self.stripes)))

    def vectors(self, stripe: int, data: bytes) -> Vectors:
        """The rows of a stripe, shape ``(rows_in(stripe), width)``, from its bytes.

        Raises:
            ValueError: they are of another size.
        """
        return np.frombuffer(data, dtype="<f4").reshape(self.rows_in(stripe), self.width)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> LargeTable:
        """The table that `to_dict` wrote."""
        return cls(str(body["name"]), int(body["rows"]), int(body["width"]), tuple(map(str, body["stripes"])))


def stripe_file(table: str, stripe: int) -> str:
    """What the file of a table's stripe is called among a net's files."""
    return f"net.{table}.{stripe:05d}"


def is_stripe(file: str) -> bool:
    """Whether a file of a model holds a stripe, and not what every process needs that answers by it."""
    return _STRIPE.search(file) is not None


def shard_of(rows: Numbers, stripes: int, shards: int) -> Numbers:
    """The number of the shard that holds each row: whole stripes in turn, stripe ``s`` in shard ``s % shards``."""
    return rows % stripes % shards


def fingerprint(tables: Sequence[LargeTable]) -> bytes:
    """32 bytes that name these tables and all that is in them."""
    return hashlib.sha256(json.dumps([one.to_dict() for one in tables], sort_keys=True).encode()).digest()


class Lookup(Protocol):
    """Where the rows of some large tables are held. One must not be used by several threads at once."""

    def rows(self, wanted: Mapping[str, Numbers]) -> dict[str, Vectors]:
        """For each table that is named the vectors of the rows that are wanted of it, in their order: shape ``(len(rows), width)``.

        Raises:
            StorageError: what holds them does not answer, or not in time.
        """
        ...


OpenTables = Callable[[Sequence[LargeTable]], Lookup]
"""Takes a net's large tables to where they are held; raises `StorageError` where that fails."""
