"""What a shard and those who ask it send: frames of a length and a body, little-endian, that name the tables they are about."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mainspring.errors import DeclarationError
from mainspring.models.large_tables import LargeTable, Numbers

MAGIC = b"MSH1"
MOST_BYTES = 1 << 28
"""The longest frame that is read."""
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<4sB32s")
_COUNT = np.dtype("<u4")


class Says(IntEnum):
    """What a frame asks or answers."""

    OPEN = 1
    LOOK_UP = 2
    ROWS = 3
    READY = 4
    LOADING = 5
    REFUSED = 6


class Frame(NamedTuple):
    """``tables`` is the fingerprint of those that it is about, ``body`` the rest."""

    says: Says
    tables: bytes
    body: bytes | memoryview


class Opening(NamedTuple):
    """Which tables are asked for, and as which of how many shards whoever answers is addressed."""

    shard: int
    shards: int
    tables: tuple[LargeTable, ...]

    def encoded(self) -> bytes:
        """As the body of a frame."""
        return json.dumps({"shard": self.shard, "shards": self.shards, "tables": [one.to_dict() for one in self.tables]}).encode()

    @classmethod
    def decoded(cls, body: bytes | memoryview) -> Opening:
        """Read from the body of a frame.

        Raises:
            ValueError: it is none.
        """
        try:
            whole: dict[str, Any] = json.loads(bytes(body))
            return cls(int(whole["shard"]), int(whole["shards"]), tuple(map(LargeTable.from_dict, whole["tables"])))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it does not say what it opens ({error})") from error


def encoded_rows(wanted: Sequence[Numbers]) -> bytes:
    """The numbers of the rows that are wanted of each table: how many of each, then all of them."""
    return b"".join([np.array([len(rows) for rows in wanted], _COUNT).tobytes(), *(rows.astype(_COUNT).tobytes() for rows in wanted)])


def decoded_rows(body: bytes | memoryview, tables: int) -> list[Numbers]:
    """What `encoded_rows` wrote of so many tables.

    Raises:
        ValueError: it is of another length.
    """
    counts = np.frombuffer(body, _COUNT, tables).astype(np.int64)
    rows = np.frombuffer(body, _COUNT, offset=_COUNT.itemsize * tables).astype(np.int64)
    if counts.sum() != len(rows):
        raise ValueError(f"it counts {counts.sum()} rows and names {len(rows)}")
    return np.split(rows, counts.cumsum()[:-1])


def send(connection: socket.socket, frame: Frame) -> None:
    """Send a frame whole."""
    head = _HEAD.pack(MAGIC, frame.says, frame.tables)
    connection.sendall(b"".join([_LENGTH.pack(len(head) + len(frame.body)), head, frame.body]))


def receive(connection: socket.socket, before: Callable[[], None] = lambda: None) -> Frame | None:
    """The next frame, None when the other side has closed; ``before`` is called before every wait.

    Raises:
        ValueError: what comes is no frame of this protocol.
        OSError: the connection broke.
    """
    length = _exactly(connection, _LENGTH.size, before)
    if length is None:
        return None
    size = _LENGTH.unpack(length)[0]
    if not _HEAD.size <= size <= MOST_BYTES:
        raise ValueError(f"a frame of {size} bytes")
    whole = _exactly(connection, size, before)
    if whole is None:
        raise ConnectionResetError("closed within a frame")
    magic, says, tables = _HEAD.unpack_from(whole)
    if magic != MAGIC:
        raise ValueError(f"it speaks {bytes(magic)!r}, not {MAGIC!r}")
    return Frame(Says(says), tables, memoryview(whole)[_HEAD.size :])


def _exactly(connection: socket.socket, size: int, before: Callable[[], None]) -> bytearray | None:
    """So many bytes; None when it was closed before the first."""
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        before()
        more = connection.recv_into(view[got:])
        if not more and got:
            raise ConnectionResetError("closed within a frame")
        if not more:
            return None
        got += more
    return data


def listen(address: str) -> socket.socket:
    """A listening socket at ``HOST:PORT`` or ``unix:PATH``; what is left of an earlier one at the path is replaced.

    Raises:
        DeclarationError: it is no address.
        OSError: it cannot be bound.
    """
    kind, place = parsed(address)
    if kind == socket.AF_UNIX:
        Path(str(place)).unlink(missing_ok=True)
    return socket.create_server(place, family=kind)


def connect(address: str, seconds: float) -> socket.socket:
    """A connection to such an address.

    Raises:
        DeclarationError: it is no address.
        OSError: nobody listens there, or it does not answer in time.
    """
    kind, place = parsed(address)
    if kind != socket.AF_UNIX:
        connection = socket.create_connection(place, seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(kind)
    try:
        connection.settimeout(seconds)
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection


def parsed(address: str) -> tuple[socket.AddressFamily, Any]:
    """The family and the place of an address.

    Raises:
        DeclarationError: it is neither ``unix:PATH`` nor ``HOST:PORT``.
    """
    if address.startswith("unix:"):
        return socket.AF_UNIX, address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise DeclarationError(f"Shard '{address}': this is no address. Give HOST:PORT or unix:PATH.")
    host = host.strip("[]")
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host, int(port))
