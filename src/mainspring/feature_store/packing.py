"""A key's state as one packed row: a head with the newest fact, fixed-width records of facts, the base, then ids and texts.

Almost every fact is newer than all before it and comes once. Such facts are appended to the row's bytes as they are; only
what is late, repeated or old enough to be folded goes through a `State`. Head and body have a checksum each, so that who
asks for the newest values alone need not look at the rest.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.columns import Array, from_arrow, to_array
from mainspring.errors import DeclarationError, StorageError
from mainspring.feature_engineering.facts import Base, EventIds, Newest, State, ViewPlan, present, storable
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME, Type

FORMAT = 4
IRREGULAR, FOLDED = 1, 2
"""Flags of a row: a fact is late or repeated; the base holds states of lifetime aggregates."""
INTACT = 0x2144DF1C
"""What CRC-32 gives for bytes that end with their own CRC-32, little endian."""
_HEADER = struct.Struct("<BBHIIIIIIq")
"""Format, flags, unused, number of records, bytes of base, ids and newest texts, checksum of the body, unused, when it is settled."""
_TEXTS, _SETTLED = 6, 9
CHECKSUM = 4
"""Bytes of the checksum behind the head and the newest texts."""
_MOST_COLUMNS = 64
_TIME = struct.Struct("<q")
_encode = msgspec.msgpack.Encoder().encode


class Added(NamedTuple):
    """New facts of one key in winning order, packed: records, ids and texts, each joined; the last one's texts."""

    times: list[int]
    records: bytes
    ids: list[bytes]
    texts: bytes
    newest_texts: bytes
    regular: bool


class Parts(NamedTuple):
    """Where the parts of a row begin, and what its header says; ``settled`` is the instant from which on the head has the newest."""

    flags: int
    facts: int
    records: int
    base: int
    ids: int
    texts: int
    settled: int


class RowFormat:
    """How the rows of one view are laid out; follows from its plan."""

    def __init__(self, plan: ViewPlan) -> None:
        self._plan = plan
        self._numbers = [i for i, type_ in enumerate(plan.types) if type_ != Type.STR]
        self._texts = [i for i, type_ in enumerate(plan.types) if type_ == Type.STR]
        fields = [(f"c{i}", "<f8" if plan.types[i] == Type.FLOAT else "<i8") for i in self._numbers]
        self.record = np.dtype([("t", "<i8"), ("n", "<i8"), ("nulls", "<u8"), *fields])
        header = [("format", "u1"), ("flags", "u1"), ("", "<u2"), ("count", "<u4"), ("", "<u4", 2), ("texts", "<u4"), ("", "<u4", 2)]
        self.head = np.dtype([*header, ("settled", "<i8"), ("newest", self.record)])
        nothing = np.zeros(1, self.head)
        nothing["newest"]["nulls"] = -1 % 2**64
        for i in self._numbers:
            nothing["newest"][f"c{i}"] = np.nan if plan.types[i] == Type.FLOAT else 0
        self.no_head = nothing.tobytes()
        self.no_texts = _encode(None) * len(self._texts)
        self._stride = self.record.itemsize
        self._head = struct.Struct(_HEADER.format + "qqQ" + "".join("d" if plan.types[i] == Type.FLOAT else "q" for i in self._numbers))
        self._all_floats = all(type_ == Type.FLOAT for type_ in plan.types)
        self._no_base = _encode((plan.empty().base.folds, None))
        if len(plan.types) > _MOST_COLUMNS:
            raise DeclarationError(
                f"View '{plan.view.name}': its aggregates read {len(plan.types)} columns, at most {_MOST_COLUMNS} fit a row. Split it."
            )

    def pack(self, state: State) -> bytes:
        """The packed row of a state that holds a fact."""
        settled, newest = self._plan.settled(state)
        records = self._records(state.event_times, state.known_times, state.columns)
        columns = [storable(to_array([newest.values[i]], type_), type_) for i, type_ in enumerate(self._plan.types)]
        head = self._records(np.array([newest.event_time]), np.array([newest.known_time]), columns)
        held = state.base.newest
        base = _encode((state.base.folds, None if held is None else tuple(held)))
        flags = IRREGULAR * state.irregular + FOLDED * any(one is not None for one in state.base.folds)
        texts = self._packed_texts(state.columns)
        body = (records, base, bytes(state.event_ids.packed), texts)
        return _row(flags, len(state), settled, head, self._packed_texts(columns), body)

    def unpack(self, row: bytes) -> State:
        """The state in a packed row; its number columns are read-only views of the row.

        Raises:
            StorageError: a checksum does not match, or the row has another format.
        """
        parts = self.parts(row)
        records = np.frombuffer(row, self.record, parts.facts, parts.records)
        folds, newest = msgspec.msgpack.decode(memoryview(row)[parts.base : parts.ids])
        held = None if newest is None else Newest(newest[0], newest[1], newest[2], tuple(newest[3]))
        ids = EventIds(parts.facts, memoryview(row)[parts.ids : parts.texts])
        times = np.ascontiguousarray(records["t"])
        columns = self.columns(records, row[parts.texts :])
        return State(times, records["n"], ids, columns, Base(folds, held), bool(parts.flags & IRREGULAR))

    def newest(self, row: bytes) -> tuple[int, int, list[Any]]:
        """From which instant on this is the newest fact, its event time, and its values in the order of the plan's columns.

        Raises:
            StorageError: the checksum of the head does not match, or the row has another format.
        """
        texts_at = self.head.itemsize
        if len(row) < texts_at:
            raise _refused(FORMAT)
        numbers = self._head.unpack_from(row)
        texts_end = texts_at + numbers[_TEXTS]
        if numbers[0] != FORMAT or zlib.crc32(row[: texts_end + CHECKSUM]) != INTACT:
            raise _refused(numbers[0])
        settled, event_time, _, nulls, *held = numbers[_SETTLED:]
        if not nulls and self._all_floats:
            return settled, event_time, held
        values: list[Any] = [None] * len(self._plan.types)
        for i, value in zip(self._numbers, held, strict=True):
            values[i] = None if nulls >> i & 1 else bool(value) if self._plan.types[i] == Type.BOOL else value
        if self._texts:
            packed = row[texts_at:texts_end]
            for i, text in zip(self._texts, _decode_all(len(self._texts), packed), strict=True):
                values[i] = text
        return settled, event_time, values

    def insert(self, row: bytes | None, added: Added) -> bytes:
        """The row with more facts: appended where that is all there is to it, else by way of `ViewPlan.insert`.

        Raises:
            StorageError: the row is damaged, or has another format.
        """
        if added.regular:
            longer = self._append(row, added)
            if longer is not None:
                return longer
        state = self._plan.empty() if row is None else self.unpack(row)
        return self.pack(self._plan.insert(state, self._state(added)))

    def added(self, batch: pa.RecordBatch) -> Iterator[tuple[bytes, Added]]:
        """The batch's facts per packed key; facts with a null key belong to no one."""
        plan = self._plan
        times, known = (batch.column(name).to_numpy() for name in (EVENT_TIME, KNOWN_TIME))
        columns = {i: from_arrow(batch.column(plan.columns[i]), plan.types[i]) for i in self._numbers}
        stride, packed = self._stride, self._records(times, known, columns)
        ids = list(map(_encode, batch.column(EVENT_ID).to_pylist()))
        texts = list(zip(*(map(_encode, batch.column(plan.columns[i]).to_pylist()) for i in self._texts), strict=True)) or [()] * len(batch)
        instants, punctual = times.tolist(), (known <= times).tolist()
        for key, rows in _grouped(plan, batch):
            if len(rows) == 1:
                row = rows[0]
                record = packed[row * stride : (row + 1) * stride]
                text = b"".join(texts[row])
                yield key, Added([instants[row]], record, [ids[row]], text, text, punctual[row])
                continue
            rows.sort(key=instants.__getitem__)
            moments, names = [instants[row] for row in rows], [ids[row] for row in rows]
            regular = all(punctual[row] for row in rows) and len(set(moments)) == len(set(names)) == len(rows)
            joined = b"".join([packed[row * stride : (row + 1) * stride] for row in rows])
            each = [b"".join(texts[row]) for row in rows]
            yield key, Added(moments, joined, names, b"".join(each), each[-1], regular)

    def parts(self, row: bytes) -> Parts:
        """The parts of a row.

        Raises:
            StorageError: a checksum does not match, or the row has another format.
        """
        if len(row) < self.head.itemsize:
            raise _refused(FORMAT)
        version, flags, _, count, base, ids, texts, checksum, _, settled = _HEADER.unpack_from(row)
        records = self.head.itemsize + texts + CHECKSUM
        whole = memoryview(row)
        if version != FORMAT or zlib.crc32(whole[:records]) != INTACT or zlib.crc32(whole[records:]) != checksum:
            raise _refused(version)
        base_at = records + count * self._stride
        return Parts(flags, count, records, base_at, base_at + base, base_at + base + ids, settled)

    def columns(self, records: Array, texts: bytes) -> list[Array]:
        """The columns of records of shape ``(n,)``, whose texts are packed one fact after another."""
        columns = {i: self.column(records, i) for i in self._numbers}
        if self._texts:
            values = _decode_all(len(records) * len(self._texts), texts)
            columns |= {i: to_array(values[j :: len(self._texts)], Type.STR) for j, i in enumerate(self._texts)}
        return [columns[i] for i in range(len(columns))]

    def column(self, records: Array, i: int) -> Array:
        """A column of records that is not text, by its place in the plan's columns."""
        type_, column = self._plan.types[i], records[f"c{i}"]
        if type_ == Type.FLOAT:
            return column
        if type_ == Type.BOOL:
            column = column.astype(np.bool_)
        nulls = (records["nulls"] >> np.uint64(i) & np.uint64(1)).astype(np.bool_)
        if nulls.any():
            column = column.astype(object)
            column[nulls] = None
        return column

    def _append(self, row: bytes | None, added: Added) -> bytes | None:
        moments, count, base, records, ids, texts = added.times, 0, self._no_base, b"", b"", b""
        flags = 0
        if row is not None:
            parts = self.parts(row)
            count, flags, ids = parts.facts, parts.flags, row[parts.ids : parts.texts]
            last = _TIME.unpack_from(row, parts.base - self._stride)[0]
            if flags & IRREGULAR or moments[0] <= last or any(one in ids for one in added.ids):
                return None
            base, records, texts = row[parts.base : parts.ids], row[parts.records : parts.base], row[parts.texts :]
        longer = count + len(moments)
        kept = longer // 4
        oldest = _TIME.unpack_from(records, kept * self._stride)[0] if kept < count else moments[kept - count]
        if moments[-1] - oldest > self._plan.retention:
            return None
        body = (records + added.records, base, ids + b"".join(added.ids), texts + added.texts)
        settled = moments[-1] + (not self._plan.inclusive)
        return _row(flags, longer, settled, added.records[-self._stride :], added.newest_texts, body)

    def _state(self, added: Added) -> State:
        records = np.frombuffer(added.records, self.record)
        ids = EventIds(len(records), b"".join(added.ids))
        return State(records["t"], records["n"], ids, self.columns(records, added.texts), self._plan.empty().base)

    def _records(self, times: Array, known: Array, columns: Mapping[int, Array] | Sequence[Array]) -> bytes:
        records = np.zeros(len(times), dtype=self.record)
        records["t"], records["n"] = times, known
        for i in self._numbers:
            column = columns[i]
            records["nulls"] |= (~present(column)).astype(np.uint64) << np.uint64(i)
            if column.dtype == object:
                column = np.array([0 if value is None else value for value in column], dtype=np.int64)
            records[f"c{i}"] = column
        return records.tobytes()

    def _packed_texts(self, columns: Sequence[Array]) -> bytes:
        return b"".join(map(_encode, [value for row in zip(*(columns[i] for i in self._texts), strict=True) for value in row]))


def _refused(version: int) -> StorageError:
    reason = f"has format {version}, this version reads {FORMAT}" if version != FORMAT else "does not match its checksum"
    return StorageError(f"Online store: a packed row {reason}. Rebuild the store from the event log.")


def _decode_all(count: int, packed: bytes) -> list[Any]:
    """MessagePack values one after another."""
    values: list[Any] = msgspec.msgpack.decode(b"\xdd" + count.to_bytes(4, "big") + packed)
    return values


def _row(flags: int, count: int, settled: int, newest: bytes, newest_texts: bytes, body: tuple[bytes, bytes, bytes, bytes]) -> bytes:
    """A row from its parts; the body's are records, base, ids and texts."""
    joined = b"".join(body)
    header = _HEADER.pack(FORMAT, flags, 0, count, len(body[1]), len(body[2]), len(newest_texts), zlib.crc32(joined), 0, settled)
    head = b"".join((header, newest, newest_texts))
    return b"".join((head, zlib.crc32(head).to_bytes(CHECKSUM, "little"), joined))


def _grouped(plan: ViewPlan, batch: pa.RecordBatch) -> Iterator[tuple[bytes, list[int]]]:
    names = plan.view.columns
    rows: dict[bytes, list[int]] = {}
    if not names:
        yield pack_key(()), list(range(len(batch)))
        return
    for row, key in enumerate(zip(*(batch.column(name).to_pylist() for name in names), strict=True)):
        if None not in key:
            rows.setdefault(_encode(key), []).append(row)
    yield from rows.items()


def pack_key(values: Sequence[Any]) -> bytes:
    """A key's values as bytes."""
    return _encode(values)
