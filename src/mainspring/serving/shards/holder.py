"""The process of a shard: it answers who connects, a thread each, and knows by which tables it is still needed."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from mainspring.models.large_tables import fingerprint
from mainspring.serving.shards.held import Held
from mainspring.serving.shards.wire import Frame, Opening, Says, decoded_rows, receive, send
from mainspring.storage.blobs import Blobs

GRACE_SECONDS = 12.0
_LOOK_SECONDS = 0.25
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Visit:
    connection: socket.socket
    tables: set[bytes] = field(default_factory=set)


class Holder:
    """Shard ``shard`` of ``shards``; tables come from ``stores``, by the SHA-256 of their stripes."""

    def __init__(self, shard: int, shards: int, stores: Sequence[Blobs]) -> None:
        self._shard, self._shards = shard, shards
        self._held = Held(shard, shards, stores, time.monotonic)
        self._visits: set[_Visit] = set()

    def run(self, listener: socket.socket, stop: threading.Event) -> None:
        """Answer until ``stop``, and then for as long as somebody is connected, `GRACE_SECONDS` at most: those who answer leave first."""
        until = None
        with closing(listener):
            listener.settimeout(_LOOK_SECONDS)
            while until is None or (self._visits and time.monotonic() < until):
                self._accept(listener)
                self._held.sweep({tables for visit in list(self._visits) for tables in list(visit.tables)})
                if stop.is_set() and until is None:
                    until = time.monotonic() + GRACE_SECONDS

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        visit = _Visit(connection)
        self._visits.add(visit)
        threading.Thread(target=self._serve, args=(visit,), name="visit", daemon=True).start()

    def _serve(self, visit: _Visit) -> None:
        try:
            with visit.connection:
                while (frame := receive(visit.connection)) is not None:
                    visit.tables.add(frame.tables)
                    send(visit.connection, self._answer(frame))
        except (OSError, ValueError) as error:
            _log.warning("Shard %d: a connection is closed: %s", self._shard, error)
        finally:
            self._visits.discard(visit)

    def _answer(self, frame: Frame) -> Frame:
        try:
            return self._opened(frame) if frame.says is Says.OPEN else self._looked_up(frame)
        except ValueError as error:
            return Frame(Says.REFUSED, frame.tables, f"Shard {self._shard} of {self._shards}: {error}".encode())

    def _opened(self, frame: Frame) -> Frame:
        opening = Opening.decoded(frame.body)
        if (opening.shard, opening.shards) != (self._shard, self._shards):
            raise ValueError(f"it was addressed as shard {opening.shard} of {opening.shards}; list all shards, in their order")
        if fingerprint(opening.tables) != frame.tables:
            raise ValueError("the tables are not those that the fingerprint names")
        if self._held.get(frame.tables) is not None:
            return Frame(Says.READY, frame.tables, b"")
        failed = self._held.load(frame.tables, opening.tables)
        if failed is not None:
            raise ValueError(failed)
        return Frame(Says.LOADING, frame.tables, b"")

    def _looked_up(self, frame: Frame) -> Frame:
        if frame.says is not Says.LOOK_UP:
            raise ValueError(f"{frame.says.name} is no question")
        parts = self._held.get(frame.tables)
        if parts is None:
            return Frame(Says.LOADING, frame.tables, b"")
        wanted = decoded_rows(frame.body, len(parts))
        found = [part.rows(rows) for part, rows in zip(parts, wanted, strict=True)]
        return Frame(Says.ROWS, frame.tables, b"".join([one.astype("<f4", copy=False).tobytes() for one in found]))
