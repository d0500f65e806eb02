"""The file format of the event log: frames back to back, each a header, an Arrow IPC stream of one batch, the source's name.

The header has a checksum of its own that also covers the payload's: a damaged length is never mistaken for a torn tail.

A frame from which events were erased keeps its number of events and its length in bytes: after the batch of those that are left
stand the positions of the erased ones (uint32, little-endian; none where all are), then zeros up to the source's name.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mainspring.errors import StorageError
from mainspring.storage.durable import is_blank

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = b"MSE1"
_FIELDS = struct.Struct("<4sIIQQI")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size
_NONE = np.empty(0, dtype=np.int64)
Chosen = Callable[[str, "pa.RecordBatch"], npt.NDArray[np.bool_]]
"""For a source and a batch of its events which of them are meant, of shape ``(n,)``."""


class Header(NamedTuple):
    """What stands before a frame's payload: lengths in bytes, ``offset`` the number of the frame's first event."""

    name_length: int
    rows: int
    length: int
    offset: int
    checksum: int


class Hop(NamedTuple):
    """Where a walk over headers ended: byte ``position`` and event ``offset`` of the next frame, ``torn`` bytes behind it."""

    position: int
    offset: int
    torn: int


class Payload(NamedTuple):
    """What a frame holds: its source, the events that are left, and the positions in the frame of those that were erased."""

    source: str
    batch: pa.RecordBatch
    erased: npt.NDArray[np.int64]


def encode(source: str, batch: pa.RecordBatch, offset: int) -> list[Any]:
    """The buffers of one frame, in the order in which they are written."""
    body, name = _stream(batch), source.encode()
    return [_header(name, batch.num_rows, body.size + len(name), offset, zlib.crc32(name, zlib.crc32(body))), body, name]


def encode_erased(payload: Payload, header: Header) -> bytes:
    """The frame of ``header`` with what is left of it, as long in bytes as it was.

    Raises:
        StorageError: what is left and the positions need more bytes than the frame had.
    """
    name = payload.source.encode()
    positions = payload.erased.astype("<u4").tobytes() if payload.batch.num_rows else b""
    room = header.length - len(name)
    body = next((one for one in (_stream(payload.batch), _stream(payload.batch, "zstd")) if one.size + len(positions) <= room), None)
    if body is None:
        raise StorageError(
            f"Event log, event {header.offset}: its frame has no room for {len(payload.batch)} of {header.rows} events and the places of "
            "the others. Erase all events of this frame, or rebuild the log from its sources."
        )
    data = bytes(body) + positions + bytes(room - body.size - len(positions)) + name
    return _header(name, header.rows, header.length, header.offset, zlib.crc32(data)) + data


def to_message(source: str, batch: pa.RecordBatch) -> bytes:
    """A frame on its own, for a log that keeps entries and numbers them itself."""
    return b"".join(encode(source, batch, 0))


def from_message(data: bytes) -> tuple[str, pa.RecordBatch]:
    """Source and batch of what `to_message` gave.

    Raises:
        ValueError: the bytes are not that, or not whole; the message says what is wrong.
    """
    fields = data[: _FIELDS.size]
    if len(data) < HEADER_BYTES or zlib.crc32(fields) != _CHECKSUM.unpack_from(data, _FIELDS.size)[0]:
        raise ValueError("the header does not match its checksum")
    magic, name_length, _, _, _, checksum = _FIELDS.unpack(fields)
    if magic != _MAGIC:
        raise ValueError(f"format {magic!r} is not {_MAGIC!r}")
    payload = memoryview(data)[HEADER_BYTES:]
    if zlib.crc32(payload) != checksum:
        raise ValueError("the payload does not match its checksum")
    split = len(payload) - name_length
    stream, _ = _opened(payload[:split])
    return bytes(payload[split:]).decode(), stream.read_next_batch()


def read_header(path: str, descriptor: int, position: int, offset: int) -> Header:
    """The header at ``position``, whose first event must be number ``offset``.

    Raises:
        StorageError: the bytes there are not the header of that frame.
    """
    return _parse(path, os.pread(descriptor, HEADER_BYTES, position), position, offset)


def read_payload(path: str, descriptor: int, position: int, header: Header) -> Payload:
    """What the frame at ``position`` holds.

    Raises:
        StorageError: the payload is cut short or does not match its checksum.
    """
    data = os.pread(descriptor, header.length, position + HEADER_BYTES)
    if len(data) < header.length:
        raise damaged(path, position, header.offset, "the file ends inside a frame")
    if zlib.crc32(data) != header.checksum:
        raise damaged(path, position, header.offset, "a frame's payload does not match its checksum")
    split = header.length - header.name_length
    stream, reader = _opened(memoryview(data)[:split])
    batch = stream.read_next_batch()
    return Payload(data[split:].decode(), batch, _erased(data, header.rows, batch.num_rows, stream, reader))


def hop(path: str, descriptor: int, position: int, offset: int, stop: int | None = None) -> Hop:
    """Walk over headers from the frame at ``position`` to the last whole frame, or to the frame that holds event ``stop``.

    Half a frame at the end of the file is torn: an append that was killed, or that another process is in the middle of.

    Raises:
        StorageError: a header that is there in full is damaged.
    """
    while stop is None or offset < stop:
        data = os.pread(descriptor, HEADER_BYTES, position)
        size = os.fstat(descriptor).st_size  # asked after the read: a header seen before a torn tail was cut does not count
        if len(data) < HEADER_BYTES or (not data.strip(b"\0") and is_blank(descriptor, position, size)):
            return Hop(position, offset, max(size - position, 0))
        header = _parse(path, data, position, offset)
        end = position + HEADER_BYTES + header.length
        if end > size:
            return Hop(position, offset, size - position)
        if stop is not None and offset + header.rows > stop:
            break
        position, offset = end, offset + header.rows
    return Hop(position, offset, 0)


def without(path: str, descriptor: int, base: int, chosen: Chosen) -> Iterator[tuple[int, tuple[bytes, int] | None]]:
    """Where each frame begins, and what it is without the chosen events and how many they are; None where there are none.

    Raises:
        StorageError: a frame is damaged.
    """
    position, offset, size = 0, base, os.fstat(descriptor).st_size
    while position < size:
        header = read_header(path, descriptor, position, offset)
        payload = read_payload(path, descriptor, position, header)
        gone = np.asarray(chosen(payload.source, payload.batch), dtype=np.bool_)
        if gone.any():
            positions = np.setdiff1d(np.arange(header.rows), payload.erased)[gone]
            erased = Payload(payload.source, _filtered(payload.batch, ~gone), np.union1d(payload.erased, positions))
            yield position, (encode_erased(erased, header), int(gone.sum()))
        else:
            yield position, None
        position, offset = position + HEADER_BYTES + header.length, offset + header.rows


def _filtered(batch: pa.RecordBatch, mask: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """Some rows of a batch, with dictionaries of only the values that they hold."""
    import pyarrow as pa

    columns = [
        column.dictionary_decode().dictionary_encode().cast(column.type) if pa.types.is_dictionary(column.type) else column
        for column in batch.filter(pa.array(mask)).columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _erased(data: bytes, rows: int, left: int, stream: Any, reader: Any) -> npt.NDArray[np.int64]:
    if left == rows:
        return _NONE
    if left == 0:
        return np.arange(rows)
    list(stream)
    return np.frombuffer(data, "<u4", rows - left, reader.tell()).astype(np.int64)


def _opened(data: memoryview) -> tuple[Any, Any]:
    """A reader of the Arrow stream that the bytes begin with, and what tells how far it has read."""
    import pyarrow as pa

    reader = pa.BufferReader(pa.py_buffer(data))
    return pa.ipc.open_stream(reader), reader


def _stream(batch: pa.RecordBatch, compression: str | None = None) -> pa.Buffer:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def _header(name: bytes, rows: int, length: int, offset: int, checksum: int) -> bytes:
    fields = _FIELDS.pack(_MAGIC, len(name), rows, length, offset, checksum)
    return fields + _CHECKSUM.pack(zlib.crc32(fields))


def _parse(path: str, data: bytes, position: int, offset: int) -> Header:
    if len(data) < HEADER_BYTES:
        raise damaged(path, position, offset, "the file ends inside a frame")
    fields = data[: _FIELDS.size]
    if zlib.crc32(fields) != _CHECKSUM.unpack_from(data, _FIELDS.size)[0]:
        raise damaged(path, position, offset, "a frame's header does not match its checksum")
    magic, *values = _FIELDS.unpack(fields)
    if magic != _MAGIC:
        raise StorageError(f"Event log, {path}: format {magic!r} is not {_MAGIC!r}. Read it with the version that wrote it.")
    header = Header(*values)
    if header.offset != offset:
        raise damaged(path, position, offset, f"the frame there begins with event {header.offset}")
    return header


def damaged(path: str, position: int, offset: int, what: str) -> StorageError:
    """The error for bytes that no kill can explain."""
    return StorageError(
        f"Event log, {path}, byte {position}, event {offset}: {what}. Restore this file from a copy. Without one, losing event {offset} "
        f"and all after it: remove the later segments and run 'truncate -s {position} {path}'."
    )
