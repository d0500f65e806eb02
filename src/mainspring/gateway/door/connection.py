"""A connection's own limits, beneath the application: slow, endless, oversized and too many clients are shown out."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mainspring.gateway.door.tls import name_in
from mainspring.gateway.door.wire import Wire

_LINGER_SECONDS = 2.0
_NEVER = math.inf
_MESSAGES = {
    400: ("malformed", "This is not HTTP/1.1 as RFC 9112 has it. Send one host, and one way to tell where the body ends."),
    414: ("url_too_long", "The URL is too long. Put less into the query."),
    431: ("head_too_large", "The head of the request is too large. Send fewer or shorter header fields."),
    503: ("connections", "Too many connections are open. Come back in a second or more."),
    408: ("too_slow", "The head of the request did not come in time. Send it faster."),
}


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's connection with deadlines for head, body and reading of answers, and with limits for the head."""

    def __init__(self, wire: Wire, **options: Any) -> None:
        super().__init__(**options)
        self._wire = wire
        self._came = 0.0
        self._head_bytes: int | None = 0
        self._due = _NEVER
        self._write_due = _NEVER
        self._lingering = False
        self._answering: RequestResponseCycle | None = None
        self._status = 400
        self.late = False
        self.certificate = ""

    @property
    def waited(self) -> float:
        """Seconds since the bytes of the request's head came."""
        return time.perf_counter() - self._came

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let it in, or say at once that there is no room."""
        super().connection_made(transport)
        wire = self._wire
        wire.watch(self.loop)
        wire.open.add(self)
        self._due = time.perf_counter() + wire.timeouts.head
        self.certificate = name_in(transport.get_extra_info("peercert"))
        if len(wire.open) > wire.timeouts.connections:
            self._refuse(503)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; what is being answered learns of it, though other requests came after it."""
        self._wire.open.discard(self)
        if self._answering is not None:
            self._answering.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head may take only so long and be only so large."""
        if self._lingering:
            return
        now = time.perf_counter()
        self._came = self._wire.bytes_came(now)
        if self._due == _NEVER and (self.cycle is None or self.cycle.response_complete):
            self._due = now + self._wire.timeouts.head
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes is not None and self._head_bytes > self._wire.limits.head and not self._lingering:
            self._refuse(431)
        if self.cycle is not None and self.cycle.more_body and not self._lingering:
            self.cycle.transport.close = self._linger  # type: ignore[method-assign]

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self.late = False
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        """Gather the URL, up to its limit."""
        super().on_url(url)
        if len(self.url) > self._wire.limits.url:
            raise self._wrong(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Gather header fields, up to their limit."""
        super().on_header(name, value)
        if len(self.headers) > self._wire.limits.headers:
            raise self._wrong(431)

    def on_headers_complete(self) -> None:
        """The head is whole: the body has its own time."""
        limits = self._wire.limits
        if self._head_bytes is not None and self._head_bytes > limits.head:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > limits.head:
                raise self._wrong(431)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise self._wrong(400)
        self._head_bytes = None
        self._due = time.perf_counter() + self._wire.timeouts.body
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._head_bytes = 0
        self._due = _NEVER
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        cycle.transport = Whole(self.transport, alone=self.scope["method"] == "HEAD")  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what the parser, or a limit, did not let through."""
        if self.cycle is not None and self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(self._status)

    def pause_writing(self) -> None:
        """The client does not read; it has so long to begin again."""
        super().pause_writing()
        self._write_due = time.perf_counter() + self._wire.timeouts.write

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._write_due = _NEVER

    def check(self, now: float) -> None:
        """Show out whoever has had its time."""
        if self._lingering or now >= self._write_due:
            if now >= min(self._write_due, self._due):
                self._reset()
        elif self.transport.is_closing():
            self._write_due = min(self._write_due, now + self._wire.timeouts.write)
        elif now >= self._due:
            self._out_of_time()

    def _reset(self) -> None:
        if not self._lingering:
            self._wire.refused("slow_reader")
            at_once = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.transport.abort()

    def _out_of_time(self) -> None:
        if self._head_bytes is not None:
            self._refuse(408)
        elif self.cycle.response_complete:
            self._linger()
        else:
            self.late, self._due = True, _NEVER
            self.cycle.message_event.set()

    def _wrong(self, status: int) -> ValueError:
        self._status = status
        return ValueError(_MESSAGES[status][1])

    def _refuse(self, status: int) -> None:
        reason, message = _MESSAGES[status]
        self._wire.refused(reason)
        body = msgspec.json.encode({"error": {"field": None, "message": message, "request_id": None}})
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        retry = "retry-after: 1\r\n" if status == 503 else ""
        self.transport.write(f"{head}{retry}connection: close\r\n\r\n".encode() + body)
        self._linger()

    def _linger(self) -> None:
        """End the answer, and read on for a moment: closing at once would reset the connection before the client saw the answer."""
        if self._lingering:
            return
        self._lingering = True
        self._due = time.perf_counter() + _LINGER_SECONDS
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """End a connection that has nothing to say any more."""
        if self._lingering:
            self.transport.abort()
        else:
            super().shutdown()


class Whole:
    """A transport on which the head of an answer waits for its body: a process that dies between the two would leave half an answer.
    ``alone`` a head has no body to wait for.

    ``close`` is what ends the connection: a client that is still sending first has time to read the answer.
    """

    def __init__(self, transport: asyncio.Transport, *, alone: bool) -> None:
        self._transport = transport
        self._alone = alone
        self._head = b""
        self.is_closing = transport.is_closing
        self.close: Callable[[], None] = transport.close

    def write(self, data: bytes) -> None:
        """Send it, with the head that waited; a head itself waits."""
        if not self._alone and not self._head and data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self._transport.write(self._head + data)
        self._head = b""
