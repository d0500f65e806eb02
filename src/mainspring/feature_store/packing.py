"""A key's state as a packed row: a head with the last fact, fixed-width records of those before it, the base, ids and texts.

Almost every fact is newer than all before it and comes once. Such facts are appended to the row's bytes as they are; only
what is late, repeated or old enough to be folded goes through a `State`. Head and body have a checksum each, so that who
asks for the newest values alone need not look at the rest.

A key with many facts has a second row for the older ones, so that an append writes some dozen facts anew and not all of a
window. The first row then says how many facts the second holds, when the last of them happened, its checksum, and a print
of four bytes of each of their ids, by which an id that comes again is found without reading them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from mainspring.columns import Array, to_array
from mainspring.errors import DeclarationError, StorageError
from mainspring.feature_engineering.facts import Base, EventIds, Newest, State, ViewPlan, present
from mainspring.schema import Type

FORMAT = 5
LATE, REPEATED, FOLDED, DIVIDED = 1, 2, 4, 8
"""Flags of a row: a fact was known after it happened; an event id is repeated; the base holds states of lifetime aggregates;
older facts are in a row of their own."""
_HEADER = struct.Struct("<BBHIIIIQq")
"""Format, flags, unused, number of facts, bytes of base, ids and the last fact's texts, checksum of the body, when settled."""
_TEXTS, _SETTLED = 6, 8
CHECKSUM = 8
"""Bytes of a checksum, XXH3: in the header for the body, behind head and newest texts for these."""
_OLDER = struct.Struct("<IIQq")
"""What a first row says of the second before the prints: number of facts, bytes of ids, checksum, the last one's event time."""
_PRINT = 4
_MOST_COLUMNS = 64
TIME = struct.Struct("<q")
"""What a record begins with: the event time."""
_encode = msgspec.msgpack.Encoder().encode


class Row(NamedTuple):
    """A key's rows: the first, and the second, which is empty where there is none, and None where it was not read, or is as it was."""

    recent: bytes
    older: bytes | None


class Older(NamedTuple):
    """What a first row says of the second."""

    facts: int
    ids: int
    checksum: int
    last: int


NO_OLDER = Older(0, 0, 0, -(2**63))


class Parts(NamedTuple):
    """Flags and number of facts of a first row, where its parts begin, and the second; from ``settled`` on the last fact is the newest."""

    settled: int
    flags: int
    facts: int
    records: int
    base: int
    prints: int
    ids: int
    texts: int
    older: Older


class Packed(NamedTuple):
    """Facts on their way into a row; ``texts`` are those of all facts but the last, and the last one's."""

    flags: int
    settled: int
    records: bytes
    base: bytes
    ids: bytes
    texts: tuple[bytes, bytes]


class RowFormat:
    """How the rows of one view are laid out; follows from its plan.

    A row of up to ``few`` facts is not divided; ``kept`` newest ones stay in the first row when others move to the second.
    """

    few, kept = 64, 16

    def __init__(self, plan: ViewPlan) -> None:
        self._plan = plan
        self._numbers = [i for i, type_ in enumerate(plan.types) if type_ != Type.STR]
        self._text_places = [i for i, type_ in enumerate(plan.types) if type_ == Type.STR]
        fields = [(f"c{i}", "<f8" if plan.types[i] == Type.FLOAT else "<i8") for i in self._numbers]
        self.record = np.dtype([("t", "<i8"), ("n", "<i8"), ("nulls", "<u8"), *fields])
        lengths = [(name, "<u4") for name in ("count", "base", "ids", "texts")]
        header = [("format", "u1"), ("flags", "u1"), ("", "<u2"), *lengths, ("body", "<u8"), ("settled", "<i8")]
        self.head = np.dtype([*header, ("last", self.record)])
        self.last_at = _HEADER.size
        nothing = np.zeros(1, self.head)
        nothing["last"]["nulls"] = -1 % 2**64
        for i in self._numbers:
            nothing["last"][f"c{i}"] = np.nan if plan.types[i] == Type.FLOAT else 0
        self.no_head = nothing.tobytes()
        self.no_texts = _encode(None) * len(self._text_places)
        self.stride = self.record.itemsize
        self._head = struct.Struct(_HEADER.format + "qqQ" + "".join("d" if plan.types[i] == Type.FLOAT else "q" for i in self._numbers))
        self._all_floats = all(type_ == Type.FLOAT for type_ in plan.types)
        self.no_base = _encode((plan.empty().base.folds, None))
        if len(plan.types) > _MOST_COLUMNS:
            raise DeclarationError(
                f"View '{plan.view.name}': its aggregates read {len(plan.types)} columns, at most {_MOST_COLUMNS} fit a row. Split it."
            )

    def pack(self, state: State) -> Row:
        """The rows of a state that holds a fact."""
        facts = self.packed(state)
        return self.divided(facts, b"", b"") if len(state) > self.few else Row(self.row(facts, b""), b"")

    def unpack(self, row: Row) -> State:
        """The state in a key's rows; its number columns are read-only.

        Raises:
            StorageError: a checksum does not match, or a row has another format.
        """
        parts = self.parts(row.recent, row.older or b"")
        folds, newest = msgspec.msgpack.decode(memoryview(row.recent)[parts.base : parts.prints])
        held = None if newest is None else Newest(newest[0], newest[1], newest[2], tuple(newest[3]))
        return self.state_of(row.recent, row.older or b"", parts, Base(folds, held))

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
        if numbers[0] != FORMAT or xxh3_64_digest(row[:texts_end]) != row[texts_end : texts_end + CHECKSUM]:
            raise _refused(numbers[0])
        settled, event_time, _, nulls, *held = numbers[_SETTLED:]
        if not nulls and self._all_floats:
            return settled, event_time, held
        values: list[Any] = [None] * len(self._plan.types)
        for i, value in zip(self._numbers, held, strict=True):
            values[i] = None if nulls >> i & 1 else bool(value) if self._plan.types[i] == Type.BOOL else value
        if self._text_places:
            packed = row[texts_at:texts_end]
            for i, text in zip(self._text_places, _decode_all(len(self._text_places), packed), strict=True):
                values[i] = text
        return settled, event_time, values

    def parts(self, recent: bytes, older: bytes | None = None) -> Parts:
        """The parts of a first row; with the second, this is held against it.

        Raises:
            StorageError: a checksum does not match, or the row has another format.
        """
        if len(recent) < self.head.itemsize:
            raise _refused(FORMAT)
        version, flags, _, count, base, ids, texts, checksum, settled = _HEADER.unpack_from(recent)
        records = self.head.itemsize + texts + CHECKSUM
        head, body = recent[: records - CHECKSUM], memoryview(recent)[records:]
        if version != FORMAT or xxh3_64_digest(head) != recent[records - CHECKSUM : records] or xxh3_64_intdigest(body) != checksum:
            raise _refused(version)
        base_at = records + (count - 1) * self.stride
        prints_at = ids_at = base_at + base
        second = NO_OLDER
        if flags & DIVIDED:
            second = Older._make(_OLDER.unpack_from(recent, prints_at))
            ids_at += _OLDER.size + _PRINT * second.facts
            if older is not None and xxh3_64_intdigest(older) != second.checksum:
                raise _refused(FORMAT)
        return Parts(settled, flags, count, records, base_at, prints_at, ids_at, ids_at + ids, second)

    def facts(self, recent: bytes, older: bytes, parts: Parts) -> bytes:
        """The records of all facts of a key's rows."""
        last = recent[_HEADER.size : _HEADER.size + self.stride]
        return b"".join((older[: parts.older.facts * self.stride], recent[parts.records : parts.base], last))

    def texts(self, recent: bytes, parts: Parts) -> tuple[bytes, bytes]:
        """The texts of all facts of a first row but the last, and the last one's."""
        return recent[parts.texts :], recent[self.head.itemsize : parts.records - CHECKSUM]

    def columns(self, records: Array, texts: bytes) -> list[Array]:
        """The columns of records of shape ``(n,)``, whose texts are packed one fact after another."""
        columns = {i: self.column(records, i) for i in self._numbers}
        if self._text_places:
            values = _decode_all(len(records) * len(self._text_places), texts)
            columns |= {i: to_array(values[j :: len(self._text_places)], Type.STR) for j, i in enumerate(self._text_places)}
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

    def packed(self, state: State) -> Packed:
        """The facts of a state, packed."""
        records = self.records(state.event_times, state.known_times, state.columns).tobytes()
        held = state.base.newest
        base = _encode((state.base.folds, None if held is None else tuple(held)))
        flags = LATE * state.late + REPEATED * state.repeated + FOLDED * any(one is not None for one in state.base.folds)
        texts = (self._packed_texts(state.columns, slice(0, -1)), self._packed_texts(state.columns, slice(-1, None)))
        return Packed(flags, self._plan.settled(state), records, base, state.event_ids.packed, texts)

    def divided(self, facts: Packed, prints: bytes, older: bytes) -> Row:
        """Rows whose second holds what it held (``older``, with ``prints`` in the first) and all but the newest of these facts."""
        held = Older._make(_OLDER.unpack_from(prints)) if prints else NO_OLDER
        if prints and xxh3_64_intdigest(older) != held.checksum:
            raise _refused(FORMAT)
        ends = [held.facts * self.stride, held.facts * self.stride + held.ids]
        count = len(facts.records) // self.stride
        cut = count - self.kept
        ids, width = [_encode(one) for one in _decode_all(count, facts.ids)], len(self._text_places)
        texts = [_encode(one) for one in _decode_all(count * width, b"".join(facts.texts))] if width else []
        moved = facts.records[: cut * self.stride]
        second = b"".join((older[: ends[0]], moved, older[ends[0] : ends[1]], *ids[:cut], older[ends[1] :], *texts[: cut * width]))
        last = TIME.unpack_from(moved, len(moved) - self.stride)[0]
        numbers = _OLDER.pack(held.facts + cut, held.ids + sum(map(len, ids[:cut])), xxh3_64_intdigest(second), last)
        prints = b"".join((numbers, prints[_OLDER.size :], *map(_print, ids[:cut])))
        kept = (b"".join(texts[cut * width : len(texts) - width]), b"".join(texts[len(texts) - width :]))
        rest = Packed(facts.flags, facts.settled, facts.records[len(moved) :], facts.base, b"".join(ids[cut:]), kept)
        return Row(self.row(rest, prints), second)

    def row(self, facts: Packed, prints: bytes) -> bytes:
        """A first row; ``prints`` is what it says of the second, empty where there is none."""
        stride = self.stride
        body = b"".join((facts.records[:-stride], facts.base, prints, facts.ids, facts.texts[0]))
        count, flags = len(facts.records) // stride, facts.flags & ~DIVIDED | DIVIDED * bool(prints)
        lengths = (count, len(facts.base), len(facts.ids), len(facts.texts[1]))
        header = _HEADER.pack(FORMAT, flags, 0, *lengths, xxh3_64_intdigest(body), facts.settled)
        head = b"".join((header, facts.records[-stride:], facts.texts[1]))
        return b"".join((head, xxh3_64_digest(head), body))

    def state_of(self, recent: bytes, older: bytes, parts: Parts, base: Base) -> State:
        """The state of the facts in rows, over a base."""
        records, second = np.frombuffer(self.facts(recent, older, parts), self.record), parts.older
        ids_at = second.facts * self.stride
        texts_at = ids_at + second.ids
        ids = EventIds(len(records), lambda: older[ids_at:texts_at] + recent[parts.ids : parts.texts])
        texts = b"".join((older[texts_at:], *self.texts(recent, parts)))
        columns, flags = self.columns(records, texts), parts.flags
        return State(np.ascontiguousarray(records["t"]), records["n"], ids, columns, base, bool(flags & LATE), bool(flags & REPEATED))

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
        rows = zip(*(columns[i][which] for i in self._text_places), strict=True)
        return b"".join(map(_encode, [value for row in rows for value in row]))


def _print(event_id: bytes) -> bytes:
    return xxh3_64_digest(event_id)[:_PRINT]


def may_hold(prints: bytes, ids: Sequence[bytes]) -> bool:
    """Whether one of the ids may be among those that have left prints; False is certain."""
    return bool(prints) and any(prints.find(_print(one), _OLDER.size) >= 0 for one in ids)


def _refused(version: int) -> StorageError:
    reason = f"has format {version}, this version reads {FORMAT}" if version != FORMAT else "does not match its checksum"
    return StorageError(f"Online store: a packed row {reason}. Rebuild the store from the event log.")


def _decode_all(count: int, packed: bytes) -> list[Any]:
    """MessagePack values one after another."""
    values: list[Any] = msgspec.msgpack.decode(b"\xdd" + count.to_bytes(4, "big") + packed)
    return values
