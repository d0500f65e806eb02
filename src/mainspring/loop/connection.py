"""One keep-alive connection to an HTTP/1.1 server, one request in flight on it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import cast

import httptools

Answered = Callable[["Connection", int, bytes], None]
Lost = Callable[["Connection"], None]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_STATUS = slice(9, 12)


class Connection(asyncio.Protocol):
    """Sends a request, and calls ``answered`` with status and body; ``lost`` once, when the connection ends.

    A response that comes in one piece with a ``content-length`` is read where it lies; every other goes through httptools.
    """

    def __init__(self, answered: Answered, lost: Lost) -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._body: list[bytes] = []
        self.usable = False

    def send(self, request: bytes) -> None:
        """Put one request on the wire."""
        assert self._transport is not None
        self._transport.write(request)

    def close(self) -> None:
        """End it at once; what is in flight is given up."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport, self.usable = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._parser is None:
            end = data.find(b"\r\n\r\n") + 4
            length = _LENGTH.search(data, 0, end) if end > 3 else None
            if length is not None and len(data) == end + int(length[1]):
                self.usable = _CLOSE.search(data, 0, end) is None
                self._answered(self, int(data[_STATUS]), data[end:])
                return
            self._parser, self._body = httptools.HttpResponseParser(self), []
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        assert self._parser is not None
        status, self.usable = self._parser.get_status_code(), self._parser.should_keep_alive()
        self._parser = None
        self._answered(self, status, b"".join(self._body))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by the event loop."""
        self.usable = False
        self._lost(self)


def post(host: str, path: str, body: bytes) -> bytes:
    """A POST of JSON as bytes on the wire; ``host`` may hold a port."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
