"""New facts of a view on their way into packed rows: grouped by key, packed all at once, then one row after another.

Most rows either do not exist yet or get facts newer than all they hold. The first are built together; see `Appender`
for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_digest

from mainspring.columns import Array, from_arrow
from mainspring.feature_engineering.facts import ViewPlan
from mainspring.feature_store.appending import Added, Appender
from mainspring.feature_store.keys import pack_keys
from mainspring.feature_store.packing import CHECKSUM, FORMAT, LATE, RowFormat
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME, Type
from mainspring.storage.sharded import shard_of

Longs = npt.NDArray[np.int64]
_MANY = 32
_LONGEST = (1 << 21) - 1
_encode = msgspec.msgpack.Encoder().encode


class Incoming:
    """The facts of a batch per key, or of those keys that fall to shard ``i`` of ``n``; facts with a null key belong to no one.

    ``keys`` are packed keys, those of one column in order, which suits stores that keep theirs in order.
    """

    def __init__(self, plan: ViewPlan, form: RowFormat, batch: pa.RecordBatch, share: tuple[int, int] | None = None) -> None:
        self._plan, self._form, self._appender = plan, form, Appender(plan, form)
        self.keys, codes = _keys(plan, batch)
        if share is not None:
            self.keys, codes = _of_share(self.keys, codes, *share)
            batch, codes = batch.filter(pa.array(codes >= 0)), codes[codes >= 0]
        order = np.lexsort((batch.column(EVENT_TIME).to_numpy(), codes))
        order = order[np.searchsorted(codes[order], 0) :]
        batch, codes = batch.take(pa.array(order)), codes[order]
        self._times, known = (batch.column(name).to_numpy() for name in (EVENT_TIME, KNOWN_TIME))
        columns = {i: from_arrow(batch.column(plan.columns[i]), type_) for i, type_ in enumerate(plan.types) if type_ != Type.STR}
        self._records = form.records(self._times, known, columns)
        self._ids = list(map(_encode, batch.column(EVENT_ID).to_pylist()))
        self._texts = _texts(plan, batch) or [b""] * len(batch)
        self._counts = np.bincount(codes, minlength=len(self.keys))
        self._starts = np.cumsum(self._counts) - self._counts
        self._ordered = self._find_ordered(codes)
        self._known = np.maximum.reduceat(known, self._starts) if len(batch) else self._starts
        self._late = np.bincount(codes, known > self._times, len(self.keys)) > 0

    def rows(self, held: Sequence[bytes | None], load: Callable[[int], bytes]) -> tuple[list[bytes], dict[int, bytes]]:
        """The first row of each key with its facts in it, and those second rows that are others now, by place; an empty one is gone.

        ``held`` are the first rows as they were, ``load(i)`` reads a second one.
        """
        rows: list[bytes | None] = [None] * len(held)
        older: dict[int, bytes] = {}
        for places, made in self._fresh(np.array([row is None for row in held], dtype=np.bool_)):
            for place, packed_row in zip(places, made, strict=True):
                rows[place] = packed_row
        left = [i for i, row in enumerate(rows) if row is None]
        if not left:
            return rows, older  # type: ignore[return-value]
        stride, packed, times = self._records.itemsize, self._records.tobytes(), self._times.tolist()
        starts, ends = self._starts.tolist(), (self._starts + self._counts).tolist()
        flags = list(zip(self._ordered.tolist(), self._late.tolist(), self._known.tolist(), strict=True))
        for i in left:
            start, end = starts[i], ends[i]
            records = packed[start * stride : end * stride]
            added = Added(times[start:end], records, self._ids[start:end], self._texts[start:end], *flags[i])
            rows[i], second = self._appender.insert(held[i], added, partial(load, i))
            if second is not None:
                older[i] = second
        return rows, older  # type: ignore[return-value]

    def _find_ordered(self, codes: Longs) -> npt.NDArray[np.bool_]:
        """Which keys' facts are all of different instants and ids."""
        tied = np.zeros(len(codes), dtype=np.bool_)
        tied[1:] = (self._times[1:] == self._times[:-1]) & (codes[1:] == codes[:-1])
        ordered: npt.NDArray[np.bool_] = np.bincount(codes, tied, len(self.keys)) == 0
        if len(self.keys) < len(self._ids) and len(set(self._ids)) < len(self._ids):
            for i in np.flatnonzero(ordered & (self._counts > 1)).tolist():
                ids = self._ids[self._starts[i] : self._starts[i] + self._counts[i]]
                ordered[i] = len(set(ids)) == len(ids)
        return ordered

    def _fresh(self, new: npt.NDArray[np.bool_]) -> Iterator[tuple[list[int], list[bytes]]]:
        """Places and rows of those new keys whose rows have the same shape as many others'."""
        starts, counts = self._starts, self._counts
        if np.count_nonzero(new) < _MANY:
            return
        recent = self._times[starts + counts - 1] - self._times[starts + counts // 4] <= self._plan.retention
        ids, texts = (np.array(list(map(len, one)), dtype=np.int64) for one in (self._ids, self._texts))
        plain = (counts == 1) | (len(self._form.no_texts) == 0)
        places = np.flatnonzero(new & self._ordered & recent & plain)
        ids_length, texts_length = (np.add.reduceat(one, starts)[places] for one in (ids, texts))
        shapes = (counts[places] << 42) + (ids_length << 21) + texts_length
        for shape in np.unique(shapes).tolist():
            alike = places[shapes == shape]
            if len(alike) >= _MANY:
                yield alike.tolist(), self._alike(alike, shape >> 42, shape >> 21 & _LONGEST, shape & _LONGEST)

    def _alike(self, places: Longs, count: int, ids: int, texts: int) -> list[bytes]:
        """New rows of ``count`` facts each, whose ids and texts take as many bytes; see `mainspring.feature_store.packing`."""
        starts = self._starts[places]
        form, facts, lasts = self._form, starts[:, None] + np.arange(count), starts + count - 1
        body = [("records", form.record, count - 1), ("base", f"V{len(form.no_base)}"), ("ids", f"V{ids}")]
        rows = np.zeros(len(starts), [("head", form.head), ("texts", f"V{texts}"), ("checksum", ">u8"), *body])
        head = rows["head"]
        head["format"], head["count"], head["base"], head["ids"], head["texts"] = FORMAT, count, len(form.no_base), ids, texts
        head["flags"], head["last"] = LATE * self._late[places], self._records[lasts]
        head["settled"] = np.maximum(self._times[lasts] + (not self._plan.inclusive), self._known[places])
        rows["records"], rows["base"] = self._records[facts[:, :-1]], np.void(form.no_base)
        rows["ids"] = np.frombuffer(b"".join([self._ids[fact] for fact in facts.ravel().tolist()]), f"V{ids}")
        if texts:
            rows["texts"] = np.frombuffer(b"".join([self._texts[fact] for fact in lasts.tolist()]), f"V{texts}")
        size, body_at = rows.itemsize, form.head.itemsize + texts + CHECKSUM
        head["body"] = _checksums(rows, body_at, size)
        rows["checksum"] = _checksums(rows, 0, body_at - CHECKSUM)
        packed = rows.tobytes()
        return [packed[start : start + size] for start in range(0, len(packed), size)]


def _checksums(rows: Array, start: int, end: int) -> Array:
    """XXH3 of bytes ``start`` to ``end`` of each row."""
    packed, size = rows.tobytes(), rows.itemsize
    return np.frombuffer(b"".join([xxh3_64_digest(packed[row + start : row + end]) for row in range(0, len(packed), size)]), ">u8")


def _keys(plan: ViewPlan, batch: pa.RecordBatch) -> tuple[list[bytes], Longs]:
    """The different keys, packed, and each fact's place among them, -1 for a null key."""
    columns = [batch.column(name) for name in plan.view.columns]
    if len(columns) == 1:
        encoded = columns[0].dictionary_encode()
        order = pc.sort_indices(encoded.dictionary)
        different = list(zip(encoded.dictionary.take(order).to_pylist()))
        ranks = np.full(len(different) + 1, -1)
        ranks[order.to_numpy()] = np.arange(len(different))
        return pack_keys(different), ranks[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    places: dict[tuple[Any, ...], int] = {}
    keys = zip(*(column.to_pylist() for column in columns), strict=True) if columns else [()] * len(batch)
    codes = np.array([-1 if None in key else places.setdefault(key, len(places)) for key in keys], dtype=np.int64)
    return pack_keys(places), codes


def _of_share(keys: list[bytes], codes: Longs, number: int, shards: int) -> tuple[list[bytes], Longs]:
    own = [i for i, key in enumerate(keys) if shard_of(key, shards) == number]
    places = np.full(len(keys) + 1, -1)
    places[own] = np.arange(len(own))
    return [keys[i] for i in own], places[codes]


def _texts(plan: ViewPlan, batch: pa.RecordBatch) -> list[bytes]:
    """Each fact's texts, packed and joined; an empty list where the view has none."""
    names = [name for name, type_ in zip(plan.columns, plan.types, strict=True) if type_ == Type.STR]
    packed = [list(map(_encode, batch.column(name).to_pylist())) for name in names]
    return packed[0] if len(packed) == 1 else [b"".join(one) for one in zip(*packed, strict=True)]
