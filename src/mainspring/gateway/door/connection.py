"""A connection of HTTP/1.1 (RFC 9112): requests in, answers out in order; slow, endless, oversized and too many clients are shown out."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from collections import deque
from collections.abc import Callable

import httptools

from mainspring.gateway.door.messages import CONTINUE, FRAMING, REFUSALS, Exchanged, Message, encoded, line, parsed_url, refusal
from mainspring.gateway.door.tls import name_in
from mainspring.gateway.door.wire import Wire
from mainspring.gateway.http import Head, Headers, Reply, too_large, too_slow

_LINGER_SECONDS = 2.0
_NEVER = math.inf

Begin = Callable[[Head, Callable[[Reply, Headers], None]], Exchanged]
"""Begins an exchange that will hand its answer to the function."""


class Connection(asyncio.Protocol):
    """One client, whose requests are answered one after another.

    What comes before the answer to an earlier request waits, and nothing more is read; the bytes of one read at most are kept so. An
    answer leaves in one piece: whoever reads its head has its body. A client that is still sending when its answer ends the connection
    has a moment to read it: closing at once would reset the connection before it saw the answer.
    """

    def __init__(self, begin: Begin, wire: Wire) -> None:
        self._begin, self._wire = begin, wire
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._certificate = ""
        self._came = 0.0
        self._due = self._write_due = _NEVER
        self._head_bytes: int | None = 0
        self._idle = self._advancing = self._lingering = self._full = False
        self._reading = True
        self._status = 400
        self._spoilt = 0
        self._coming: Message | None = None
        self._offering: Message | None = None
        self._active: Message | None = None
        self._queue: deque[Message] = deque()

    @property
    def busy(self) -> bool:
        """Whether it has a request that is not answered."""
        return self._active is not None and not self._active.answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let it in, or say at once that there is no room."""
        self._transport = transport
        wire = self._wire
        wire.watch(asyncio.get_running_loop())
        wire.open.add(self)
        self._due = time.perf_counter() + wire.timeouts.head
        self._certificate = name_in(transport.get_extra_info("peercert"))
        if len(wire.open) > wire.timeouts.connections:
            self._refuse(503)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget it; what it was about to ask is left."""
        self._wire.open.discard(self)
        self._queue.clear()
        if self._active is not None and self._active.exchange is not None and not self._active.answered:
            self._active.exchange.leave()

    def data_received(self, data: bytes) -> None:
        """Read on; a head may take only so long and be only so large."""
        if self._lingering or self._spoilt:
            return
        now = time.perf_counter()
        self._came = self._wire.bytes_came(now)
        if self._idle:
            self._idle, self._due = False, now + self._wire.timeouts.head
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._spoil(self._status)
            return
        if self._head_bytes is not None and self._head_bytes > self._wire.limits.head and not self._lingering:
            self._spoil(431)
        message = self._coming
        if message is not None and message.expects and message is self._active and not (message.answered or message.size):
            message.expects = False
            self._transport.write(CONTINUE)

    def _feed(self, data: bytes) -> None:
        """Parse; who offers to speak another protocol is answered in this one, and what follows is read on."""
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._framing() + data[upgrade.args[0] :]
            else:
                return

    def _framing(self) -> bytes:
        """What makes the parser read a body that it has passed over, because its head offers to speak another protocol."""
        if self._offering is None:
            return b""
        fields = [line(name, value) for name, value in self._offering.headers.items() if name in FRAMING]
        return b"".join([b"POST / HTTP/1.1\r\nhost: -\r\n", *fields, b"\r\n"])

    def on_message_begin(self) -> None:
        """A head begins."""
        self._coming = self._offering or Message()

    def on_url(self, url: bytes) -> None:
        """Gather the URL, up to its limit."""
        message = self._message()
        if message is self._offering:
            return
        message.url += url
        if len(message.url) > self._wire.limits.url:
            raise self._wrong(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Gather header fields, up to their limit; those that follow the body are not looked at."""
        message = self._message()
        message.count += 1
        if message.count > self._wire.limits.headers:
            raise self._wrong(431)
        if message.method:
            return
        name = name.lower()
        if name == b"host":
            message.hosts += 1
        message.headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is whole: the body has its own time."""
        message, limits, parser = self._message(), self._wire.limits, self._parser
        if self._lingering or message is self._offering:
            self._offering = None
            return
        if self._head_bytes is not None and self._head_bytes > limits.head:
            size = len(message.url) + sum(len(name) + len(value) + 4 for name, value in message.headers.items())
            if size > limits.head:
                raise self._wrong(431)
        version = parser.get_http_version()
        if message.hosts > 1 or (message.hosts == 0 and version == "1.1"):
            raise self._wrong(400)
        parsed_url(message.url)
        message.method = parser.get_method().decode("ascii")
        message.keep = version == "1.1" and parser.should_keep_alive()
        message.expects = message.headers.get(b"expect", b"").lower() == b"100-continue"
        self._head_bytes = None
        self._queue.append(message)
        self._advance()
        if self._queue:
            self._read(False)

    def on_body(self, body: bytes) -> None:
        """Gather the body, up to its limit; of a request that is answered already nothing is kept."""
        message = self._message()
        message.size += len(body)
        if message.answered:
            return
        message.chunks.append(body)
        if message.exchange is not None and message.size > message.exchange.limit:
            message.exchange.fail(too_large(message.exchange.limit))

    def on_message_complete(self) -> None:
        """The request is whole."""
        message = self._message()
        if self._lingering:
            return
        if self._parser.should_upgrade() and not FRAMING.isdisjoint(message.headers):
            self._offering = message
            return
        self._coming = None
        self._head_bytes, self._due = 0, _NEVER
        message.whole = True
        if message is self._active:
            self._go_on(message)

    def _message(self) -> Message:
        assert self._coming is not None
        return self._coming

    def _advance(self) -> None:
        """Begin with the next request, once the one before it has its answer and the client reads."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._active is None and self._queue and not (self._full or self._lingering):
                message = self._active = self._queue.popleft()
                self._start(message)
        finally:
            self._advancing = False

    def _start(self, message: Message) -> None:
        now = time.perf_counter()
        self._idle, self._due = False, _NEVER if message.whole else now + self._wire.timeouts.body
        path, query = parsed_url(message.url)
        head = Head(message.method, path, message.headers, query, now - self._came, self._certificate)
        message.exchange = self._begin(head, self._answer)
        if message.size > message.exchange.limit:
            message.exchange.fail(too_large(message.exchange.limit))
        if message.whole:
            self._go_on(message)

    def _go_on(self, message: Message) -> None:
        """With a request that is whole."""
        if message.answered:
            self._next()
        elif message.exchange is not None:
            chunks, message.chunks = message.chunks, []
            message.exchange.whole(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def _answer(self, reply: Reply, more: Headers) -> None:
        """Send the answer to the request whose turn it is."""
        message = self._active
        assert message is not None
        message.answered = True
        message.chunks = []
        self._wire.answered += 1
        transport = self._transport
        if transport.is_closing() or self._lingering:
            return
        message.keep = message.keep and not (self._wire.draining or reply.closes)
        transport.write(encoded(message, reply, more, self._wire.tail))
        if not message.keep:
            if message.whole:
                transport.close()
            else:
                self._linger()
        elif message.whole:
            self._next()

    def _next(self) -> None:
        """The request whose turn it was is over."""
        self._active = None
        self._advance()
        if self._active is not None or self._queue or self._lingering:
            return
        if self._spoilt:
            self._refuse(self._spoilt)
            return
        self._idle = self._coming is None
        self._due = time.perf_counter() + (self._wire.timeouts.idle if self._idle else self._wire.timeouts.head)
        self._read(not self._full)

    def _read(self, on: bool) -> None:
        if self._reading != on:
            self._reading = on
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def _spoil(self, status: int) -> None:
        """What comes cannot be read: answer what came before, then say so."""
        coming, self._coming = self._coming, None
        self._spoilt = status
        if self._active is None:
            self._refuse(status)
        elif self._active is coming:
            if self._active.answered:
                self._linger()
            else:
                exchange = self._active.exchange
                self._refuse(status)
                if exchange is not None:
                    exchange.leave()
        else:
            self._due = _NEVER
            if self._queue and self._queue[-1] is coming:
                self._queue.pop()

    def pause_writing(self) -> None:
        """The client does not read; it has so long to begin again, and meanwhile nothing more is read from it."""
        self._full = True
        self._write_due = time.perf_counter() + self._wire.timeouts.write
        self._read(False)

    def resume_writing(self) -> None:
        """The client reads."""
        self._full, self._write_due = False, _NEVER
        self._advance()
        if not self._queue:
            self._read(True)

    def check(self, now: float) -> None:
        """Show out whoever has had its time."""
        if self._lingering or now >= self._write_due:
            if now >= min(self._write_due, self._due):
                self._reset()
        elif self._transport.is_closing():
            self._write_due = min(self._write_due, now + self._wire.timeouts.write)
        elif now >= self._due:
            self._out_of_time(now)

    def _reset(self) -> None:
        if not self._lingering:
            self._wire.refused("slow_reader")
            at_once = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self._transport.abort()

    def _out_of_time(self, now: float) -> None:
        if self._idle:
            self._transport.close()
        elif self._active is None:
            self._refuse(408)
        elif self._active is not self._coming:
            self._due = now + self._wire.timeouts.body
        elif self._active.answered:
            self._linger()
        elif self._active.exchange is not None:
            self._due = _NEVER
            self._active.exchange.fail(too_slow())

    def _wrong(self, status: int) -> ValueError:
        self._status = status
        return ValueError(REFUSALS[status][1])

    def _refuse(self, status: int) -> None:
        self._wire.refused(REFUSALS[status][0])
        self._transport.write(refusal(status, self._wire.tail))
        self._linger()

    def _linger(self) -> None:
        """End the answer, and read on for a moment without looking."""
        if self._lingering:
            return
        self._lingering = True
        self._due = time.perf_counter() + _LINGER_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._read(True)

    def shutdown(self) -> None:
        """End a connection, at once or after the answer that is due."""
        if self._lingering:
            self._transport.abort()
        elif self._active is not None and not self._active.answered:
            self._active.keep = False
        else:
            self._transport.close()

    def abort(self) -> None:
        """End, whatever is due."""
        self._transport.abort()
