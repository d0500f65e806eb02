"""A key's state as one packed row: a head with the last fact, fixed-width records of those before it, the base, ids and texts.

Almost every fact is newer than all before it and comes once. Such facts are appended to the row's bytes as they are; only
what is late, repeated or old enough to be folded goes through a `State`. Head and body have a checksum each, so that who
asks for the newest values alone need not look at the rest.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mainspring.columns import Array, to_array
from mainspring.errors import DeclarationError, StorageError
from mainspring.feature_engineering.facts import Base, EventIds, Newest, State, ViewPlan, present
from mainspring.schema import Type

FORMAT = 4
LATE, REPEATED, FOLDED = 1, 2, 4
"""Flags of a row: a fact was known after it happened; an event id is repeated; the base holds states of lifetime aggregates."""
INTACT = 0x2144DF1C
"""What CRC-32 gives for bytes that end with their own CRC-32, little endian."""
_HEADER = struct.Struct("<BBHIIIIIIq")
"""Format, flags, unused, number of facts, bytes of base, ids and the last fact's texts, checksum of the body, unused, when settled."""
_TEXTS, _SETTLED = 6, 9
CHECKSUM = 4
"""Bytes of the checksum behind the head and the newest texts."""
_MOST_COLUMNS = 64
_LONGEST_KEY = 400
_HASHED = b"\xc1"
"""No MessagePack begins with it."""
_TIME = struct.Struct("<q")
_encode = msgspec.msgpack.Encoder().encode


class Added(NamedTuple):
    """New facts of one key in order of time, packed: ``records`` joined, ``texts`` joined per fact.

    ``ordered`` says that all are of different instants and ids, ``late`` that one was known after it happened, ``known`` when
    the last became known.
    """

    times: list[int]
    records: bytes
    ids: list[bytes]
    texts: list[bytes]
    ordered: bool
    late: bool
    known: int


class Parts(NamedTuple):
    """Flags and number of facts of a row, and where its parts begin; from ``settled`` on its last fact is the newest of all."""

    settled: int
    flags: int
    facts: int
    records: int
    base: int
    ids: int
    texts: int


class RowFormat:
    """How the rows of one view are laid out; follows from its plan."""

    def __init__(self, plan: ViewPlan) -> None:
        self._plan = plan
        self._numbers = [i for i, type_ in enumerate(plan.types) if type_ != Type.STR]
        self._texts = [i for i, type_ in enumerate(plan.types) if type_ == Type.STR]
        fields = [(f"c{i}", "<f8" if plan.types[i] == Type.FLOAT else "<i8") for i in self._numbers]
        self.record = np.dtype([("t", "<i8"), ("n", "<i8"), ("nulls", "<u8"), *fields])
        lengths = [(name, "<u4") for name in ("count", "base", "ids", "texts", "body", "")]
        header = [("format", "u1"), ("flags", "u1"), ("", "<u2"), *lengths, ("settled", "<i8")]
        self.head = np.dtype([*header, ("last", self.record)])
        nothing = np.zeros(1, self.head)
        nothing["last"]["nulls"] = -1 % 2**64
        for i in self._numbers:
            nothing["last"][f"c{i}"] = np.nan if plan.types[i] == Type.FLOAT else 0
        self.no_head = nothing.tobytes()
        self.no_texts = _encode(None) * len(self._texts)
        self._stride = self.record.itemsize
        self._head = struct.Struct(_HEADER.format + "qqQ" + "".join("d" if plan.types[i] == Type.FLOAT else "q" for i in self._numbers))
        self._all_floats = all(type_ == Type.FLOAT for type_ in plan.types)
        self.no_base = _encode((plan.empty().base.folds, None))
        if len(plan.types) > _MOST_COLUMNS:
            raise DeclarationError(
                f"View '{plan.view.name}': its aggregates read {len(plan.types)} columns, at most {_MOST_COLUMNS} fit a row. Split it."
            )

    def pack(self, state: State) -> bytes:
        """The packed row of a state that holds a fact."""
        records = self.records(state.event_times, state.known_times, state.columns).tobytes()
        held = state.base.newest
        base = _encode((state.base.folds, None if held is None else tuple(held)))
        flags = LATE * state.late + REPEATED * state.repeated + FOLDED * any(one is not None for one in state.base.folds)
        texts = [self._packed_texts(state.columns, slice(0, -1)), self._packed_texts(state.columns, slice(-1, None))]
        return self._row(flags, self._plan.settled(state), records, base, state.event_ids.packed, texts)

    def unpack(self, row: bytes) -> State:
        """The state in a packed row; its number columns are read-only.

        Raises:
            StorageError: a checksum does not match, or the row has another format.
        """
        parts = self.parts(row)
        records = np.frombuffer(self.facts(row, parts), self.record)
        folds, newest = msgspec.msgpack.decode(memoryview(row)[parts.base : parts.ids])
        held = None if newest is None else Newest(newest[0], newest[1], newest[2], tuple(newest[3]))
        ids = EventIds(parts.facts, lambda: row[parts.ids : parts.texts])
        times = np.ascontiguousarray(records["t"])
        columns = self.columns(records, row[parts.texts :] + row[self.head.itemsize : parts.records - CHECKSUM])
        return State(times, records["n"], ids, columns, Base(folds, held), bool(parts.flags & LATE), bool(parts.flags & REPEATED))

    def newest(self, row: bytes) -> tuple[int, int, list[Any]]:
        """From which instant on the last fact is the newest of all, its event time, and its values in the order of the plan's columns.

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
        if added.ordered:
            longer = self._append(row, added)
            if longer is not None:
                return longer
        state = self._plan.empty() if row is None else self.unpack(row)
        return self.pack(self._plan.insert(state, self._state(added)))

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
        base_at = records + (count - 1) * self._stride
        return Parts(settled, flags, count, records, base_at, base_at + base, base_at + base + ids)

    def facts(self, row: bytes, parts: Parts) -> bytes:
        """The records of all facts of a row."""
        return row[parts.records : parts.base] + row[_HEADER.size : _HEADER.size + self._stride]

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
        moments, count, flags, base, records, ids, texts = added.times, 0, LATE * added.late, self.no_base, b"", b"", b""
        settled = max(moments[-1] + (not self._plan.inclusive), added.known)
        if row is not None:
            parts = self.parts(row)
            count, flags, ids = parts.facts, flags | parts.flags, row[parts.ids : parts.texts]
            settled = max(settled, parts.settled)
            last = _TIME.unpack_from(row, _HEADER.size)[0]
            if moments[0] <= last or any(one in ids for one in added.ids):
                return None
            base, records = row[parts.base : parts.ids], self.facts(row, parts)
            texts = row[parts.texts :] + row[self.head.itemsize : parts.records - CHECKSUM]
        kept = (count + len(moments)) // 4
        oldest = _TIME.unpack_from(records, kept * self._stride)[0] if kept < count else moments[kept - count]
        if moments[-1] - oldest > self._plan.retention:
            return None
        each = [b"".join((texts, *added.texts[:-1])), added.texts[-1]]
        return self._row(flags, settled, records + added.records, base, b"".join((ids, *added.ids)), each)

    def _row(self, flags: int, settled: int, records: bytes, base: bytes, ids: bytes, texts: Sequence[bytes]) -> bytes:
        """A row from its parts; ``texts`` are those of all facts but the last, and the last one's."""
        stride = self._stride
        body = b"".join((records[:-stride], base, ids, texts[0]))
        count, crc = len(records) // stride, zlib.crc32(body)
        header = _HEADER.pack(FORMAT, flags, 0, count, len(base), len(ids), len(texts[1]), crc, 0, settled)
        head = b"".join((header, records[-stride:], texts[1]))
        return b"".join((head, zlib.crc32(head).to_bytes(CHECKSUM, "little"), body))

    def _state(self, added: Added) -> State:
        records = np.frombuffer(added.records, self.record)
        ids = EventIds(len(records), lambda: b"".join(added.ids))
        return State(records["t"], records["n"], ids, self.columns(records, b"".join(added.texts)), self._plan.empty().base)

    def records(self, times: Array, known: Array, columns: Mapping[int, Array] | Sequence[Array]) -> Array:
        """Facts of shape ``(n,)`` as records, without their texts."""
        records = np.zeros(len(times), dtype=self.record)
        records["t"], records["n"] = times, known
        for i in self._numbers:
            column = columns[i]
            records["nulls"] |= (~present(column)).astype(np.uint64) << np.uint64(i)
            if column.dtype == object:
                column = np.array([0 if value is None else value for value in column], dtype=np.int64)
            records[f"c{i}"] = column
        return records

    def _packed_texts(self, columns: Sequence[Array], which: slice) -> bytes:
        rows = zip(*(columns[i][which] for i in self._texts), strict=True)
        return b"".join(map(_encode, [value for row in rows for value in row]))


def _refused(version: int) -> StorageError:
    reason = f"has format {version}, this version reads {FORMAT}" if version != FORMAT else "does not match its checksum"
    return StorageError(f"Online store: a packed row {reason}. Rebuild the store from the event log.")


def _decode_all(count: int, packed: bytes) -> list[Any]:
    """MessagePack values one after another."""
    values: list[Any] = msgspec.msgpack.decode(b"\xdd" + count.to_bytes(4, "big") + packed)
    return values


def pack_key(values: Sequence[Any]) -> bytes:
    """A key's values as bytes that every store takes as a key: those over 400 bytes by their BLAKE2b."""
    key = _encode(values)
    return key if len(key) <= _LONGEST_KEY else _HASHED + hashlib.blake2b(key, digest_size=32).digest()


def unpack_key(key: bytes) -> list[Any] | None:
    """The values that `pack_key` packed; None where it hashed them."""
    values: list[Any] | None = None if key.startswith(_HASHED) else msgspec.msgpack.decode(key)
    return values
