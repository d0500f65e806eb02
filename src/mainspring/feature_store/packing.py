"""A key's state as one packed row: a header with a checksum, fixed-width records of facts, the base, then ids and texts.

Almost every fact is newer than all before it and comes once. Such facts are appended to the row's bytes as they are; only
what is late, repeated or old enough to be folded goes through a `State`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.columns import Array, from_arrow, to_array
from mainspring.errors import DeclarationError, StorageError
from mainspring.feature_engineering.facts import Base, EventIds, Newest, State, ViewPlan
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME, Type

FORMAT = 3
_HEADER = struct.Struct("<IBBHIIIIq")
"""Checksum of the rest, format, whether irregular, unused, counts of records, bytes of base and ids, unused, newest event time."""
_MOST_COLUMNS = 64
_LONGEST_KEY = 400
_HASHED = b"\xc1"
"""No MessagePack begins with it."""
_TIME = struct.Struct("<q")
_encode = msgspec.msgpack.Encoder().encode


class Added(NamedTuple):
    """New facts of one key in winning order, packed: records, ids and texts, each joined."""

    times: list[int]
    records: bytes
    ids: list[bytes]
    texts: bytes
    regular: bool


class RowFormat:
    """How the rows of one view are laid out; follows from its plan."""

    def __init__(self, plan: ViewPlan) -> None:
        self._plan = plan
        self._numbers = [i for i, type_ in enumerate(plan.types) if type_ != Type.STR]
        self._texts = [i for i, type_ in enumerate(plan.types) if type_ == Type.STR]
        fields = [(f"c{i}", "<f8" if plan.types[i] == Type.FLOAT else "<i8") for i in self._numbers]
        self._dtype = np.dtype([("t", "<i8"), ("n", "<i8"), ("nulls", "<u8"), *fields])
        self._stride = self._dtype.itemsize
        if len(plan.types) > _MOST_COLUMNS:
            raise DeclarationError(
                f"View '{plan.view.name}': its aggregates read {len(plan.types)} columns, at most {_MOST_COLUMNS} fit a row. Split it."
            )

    def pack(self, state: State) -> bytes:
        """The packed row of a state."""
        records = np.zeros(len(state), dtype=self._dtype)
        records["t"], records["n"] = state.event_times, state.known_times
        for i in self._numbers:
            self._fill(records, i, state.columns[i])
        newest = state.base.newest
        base = _encode((state.base.folds, None if newest is None else tuple(newest)))
        ids = bytes(state.event_ids.packed)
        texts = b"".join(map(_encode, [value for row in zip(*(state.columns[i] for i in self._texts), strict=True) for value in row]))
        last = int(state.event_times[-1]) if len(state) else 0
        return _row(state.irregular, len(state), base, ids, last, b"".join((records.tobytes(), base, ids, texts)))

    def unpack(self, row: bytes) -> State:
        """The state in a packed row; its number columns are read-only views of the row.

        Raises:
            StorageError: the checksum does not match, or the row has another format.
        """
        irregular, n, base_at, ids_at, texts_at, _ = self._header(row)
        records = np.frombuffer(row, self._dtype, n, _HEADER.size)
        folds, newest = msgspec.msgpack.decode(memoryview(row)[base_at:ids_at])
        held = None if newest is None else Newest(newest[0], newest[1], newest[2], tuple(newest[3]))
        ids = EventIds(n, memoryview(row)[ids_at:texts_at])
        times = np.ascontiguousarray(records["t"])
        return State(times, records["n"], ids, self._columns(records, row[texts_at:]), Base(folds, held), irregular)

    def insert(self, row: bytes | None, added: Added) -> bytes:
        """The row with more facts: appended where that is all there is to it, else by way of `ViewPlan.insert`.

        Raises:
            StorageError: the row is damaged, or has another format.
        """
        if row is not None and added.regular:
            longer = self._append(row, added)
            if longer is not None:
                return longer
        state = self._plan.empty() if row is None else self.unpack(row)
        return self.pack(self._plan.insert(state, self._state(added)))

    def added(self, batch: pa.RecordBatch) -> Iterator[tuple[bytes, Added]]:
        """The batch's facts per packed key; facts with a null key belong to no one."""
        plan = self._plan
        times, known = (batch.column(name).to_numpy() for name in (EVENT_TIME, KNOWN_TIME))
        records = np.zeros(len(batch), dtype=self._dtype)
        records["t"], records["n"] = times, known
        for i in self._numbers:
            self._fill(records, i, from_arrow(batch.column(plan.columns[i]), plan.types[i]))
        stride, packed = self._stride, records.tobytes()
        ids = list(map(_encode, batch.column(EVENT_ID).to_pylist()))
        texts = list(zip(*(map(_encode, batch.column(plan.columns[i]).to_pylist()) for i in self._texts), strict=True)) or [()] * len(batch)
        instants, punctual = times.tolist(), (known <= times).tolist()
        for key, rows in _grouped(plan, batch):
            if len(rows) == 1:
                row = rows[0]
                record = packed[row * stride : (row + 1) * stride]
                yield key, Added([instants[row]], record, [ids[row]], b"".join(texts[row]), punctual[row])
                continue
            rows.sort(key=instants.__getitem__)
            moments, names = [instants[row] for row in rows], [ids[row] for row in rows]
            regular = all(punctual[row] for row in rows) and len(set(moments)) == len(set(names)) == len(rows)
            joined = b"".join([packed[row * stride : (row + 1) * stride] for row in rows])
            yield key, Added(moments, joined, names, b"".join([b"".join(texts[row]) for row in rows]), regular)

    def _append(self, row: bytes, added: Added) -> bytes | None:
        irregular, n, base_at, ids_at, texts_at, last = self._header(row)
        if irregular or not n or added.times[0] <= last:
            return None
        count, newest = n + len(added.times), added.times[-1]
        first_kept = count // 4
        if first_kept < n and newest - _TIME.unpack_from(row, _HEADER.size + first_kept * self._stride)[0] > self._plan.retention:
            return None
        held = row[ids_at:texts_at]
        if any(one in held for one in added.ids):
            return None
        base, ids = row[base_at:ids_at], held + b"".join(added.ids)
        body = b"".join((row[_HEADER.size : base_at], added.records, base, ids, row[texts_at:], added.texts))
        return _row(False, count, base, ids, newest, body)

    def _state(self, added: Added) -> State:
        records = np.frombuffer(added.records, self._dtype)
        ids = EventIds(len(records), b"".join(added.ids))
        return State(records["t"], records["n"], ids, self._columns(records, added.texts), self._plan.empty().base)

    def _header(self, row: bytes) -> tuple[bool, int, int, int, int, int]:
        """Irregular, number of records, where base, ids and texts begin, newest event time."""
        checksum, version, irregular, _, n, base, ids, _, last = _HEADER.unpack_from(row)
        if version != FORMAT:
            raise StorageError(
                f"Online store: a packed row has format {version}, this version reads {FORMAT}. Rebuild the store from the event log."
            )
        if zlib.crc32(memoryview(row)[4:]) != checksum:
            raise StorageError("Online store: a packed row does not match its checksum. Rebuild the store from the event log.")
        base_at = _HEADER.size + n * self._stride
        return bool(irregular), n, base_at, base_at + base, base_at + base + ids, last

    def _fill(self, records: Array, i: int, column: Array) -> None:
        if column.dtype == object:
            nulls = np.array([value is None for value in column], dtype=np.bool_)
            records["nulls"] |= nulls.astype(np.uint64) << np.uint64(i)
            column = np.array([0 if value is None else value for value in column], dtype=np.int64)
        records[f"c{i}"] = column

    def _columns(self, records: Array, texts: bytes) -> list[Array]:
        columns: dict[int, Array] = {}
        nulls = records["nulls"]
        some = bool(nulls.any())
        for i in self._numbers:
            column = records[f"c{i}"]
            if self._plan.types[i] == Type.BOOL:
                column = column.astype(np.bool_)
            if some and self._plan.types[i] != Type.FLOAT:
                column = column.astype(object)
                column[(nulls >> np.uint64(i) & np.uint64(1)).astype(np.bool_)] = None
            columns[i] = column
        if self._texts:
            values = msgspec.msgpack.decode(b"\xdd" + (len(records) * len(self._texts)).to_bytes(4, "big") + texts)
            columns |= {i: to_array(values[j :: len(self._texts)], Type.STR) for j, i in enumerate(self._texts)}
        return [columns[i] for i in range(len(columns))]


def _row(irregular: bool, n: int, base: bytes, ids: bytes, last: int, body: bytes) -> bytes:
    header = _HEADER.pack(0, FORMAT, irregular, 0, n, len(base), len(ids), 0, last)
    row = header[4:] + body
    return zlib.crc32(row).to_bytes(4, "little") + row


def _grouped(plan: ViewPlan, batch: pa.RecordBatch) -> Iterator[tuple[bytes, list[int]]]:
    names = plan.view.columns
    rows: dict[bytes, list[int]] = {}
    if not names:
        yield pack_key(()), list(range(len(batch)))
        return
    for row, key in enumerate(zip(*(batch.column(name).to_pylist() for name in names), strict=True)):
        if None not in key:
            rows.setdefault(pack_key(key), []).append(row)
    yield from rows.items()


def pack_key(values: Sequence[Any]) -> bytes:
    """A key's values as bytes that every store takes as a key: those over 400 bytes by their BLAKE2b."""
    key = _encode(values)
    return key if len(key) <= _LONGEST_KEY else _HASHED + hashlib.blake2b(key, digest_size=32).digest()
