"""A key's state as one packed row: checksum, format, then MessagePack with the arrays as raw little-endian bytes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np

from mainspring.columns import Array
from mainspring.errors import StorageError
from mainspring.feature_engineering.facts import Base, EventIds, Newest, State

FORMAT = 2
_HEADER = 5


class _Row(msgspec.Struct, array_like=True, gc=False):
    event_times: memoryview
    known_times: memoryview
    event_ids: memoryview
    columns: list[memoryview | list[Any]]
    kinds: str
    folds: list[Any]
    newest: tuple[int, int, Any, list[Any]] | None
    irregular: bool


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Row)


def pack(state: State) -> bytes:
    """The packed row of a state."""
    newest = state.base.newest
    row = _Row(
        state.event_times.data,
        state.known_times.data,
        memoryview(state.event_ids.packed),
        [column.tolist() if column.dtype == object else np.ascontiguousarray(column).data for column in state.columns],
        "".join("o" if column.dtype == object else column.dtype.char for column in state.columns),
        state.base.folds,
        None if newest is None else (newest.event_time, newest.known_time, newest.event_id, list(newest.values)),
        state.irregular,
    )
    body = _encoder.encode(row)
    return zlib.crc32(body).to_bytes(4, "little") + bytes([FORMAT]) + body


def unpack(row: bytes) -> State:
    """The state in a packed row; its arrays are read-only views of the row.

    Raises:
        StorageError: the checksum does not match, or the row has another format.
    """
    body = memoryview(row)[_HEADER:]
    if zlib.crc32(body) != int.from_bytes(row[:4], "little"):
        raise StorageError("Online store: a packed row does not match its checksum. Rebuild the store from the event log.")
    if row[4] != FORMAT:
        raise StorageError(
            f"Online store: a packed row has format {row[4]}, this version reads {FORMAT}. Rebuild the store from the event log."
        )
    held = _decoder.decode(body)
    newest = None if held.newest is None else Newest(held.newest[0], held.newest[1], held.newest[2], tuple(held.newest[3]))
    return State(
        np.frombuffer(held.event_times, dtype=np.int64),
        np.frombuffer(held.known_times, dtype=np.int64),
        EventIds(len(held.event_times) // 8, held.event_ids),
        _columns(held.columns, held.kinds),
        Base(held.folds, newest),
        held.irregular,
    )


def _columns(columns: Sequence[memoryview | list[Any]], kinds: str) -> list[Array]:
    unpacked = []
    for values, kind in zip(columns, kinds, strict=True):
        if kind == "o":
            column = np.empty(len(values), dtype=object)
            column[:] = values
            unpacked.append(column)
        else:
            unpacked.append(np.frombuffer(cast(memoryview, values), dtype=kind))
    return unpacked
