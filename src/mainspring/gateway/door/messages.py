"""HTTP/1.1 messages (RFC 9112): a request while it comes, and the bytes of an answer."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote

import httptools
import msgspec

from mainspring.gateway.http import Headers, Reply

FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"""Names of the fields that tell where a body ends."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"connection: close\r\n"
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_BODILESS = (204, 304)
REFUSALS = {
    400: ("malformed", "This is not HTTP/1.1 as RFC 9112 has it. Send one host, and one way to tell where the body ends."),
    414: ("url_too_long", "The URL is too long. Put less into the query."),
    431: ("head_too_large", "The head of the request is too large. Send fewer or shorter header fields."),
    503: ("connections", "Too many connections are open. Come back in a second or more."),
    408: ("too_slow", "The head of the request did not come in time. Send it faster."),
}
"""Why a connection refuses by itself: for each status a word for the metrics and a sentence for the client."""


class Exchanged(Protocol):
    """What a connection does with a request; see `mainspring.gateway.exchange.Exchange`."""

    @property
    def limit(self) -> int:
        """The most bytes that the body may have."""
        ...

    def whole(self, body: bytes) -> None:
        """The body is there."""
        ...

    def fail(self, error: Exception) -> None:
        """Answer that it failed."""
        ...

    def leave(self) -> None:
        """The client has left."""
        ...


class Message:
    """A request as it comes, from its first byte; ``exchange`` once its turn has come."""

    __slots__ = ("answered", "chunks", "count", "exchange", "expects", "headers", "hosts", "keep", "method", "size", "url", "whole")

    def __init__(self) -> None:
        self.url = b""
        self.method = ""
        self.headers: dict[bytes, bytes] = {}
        self.count = self.hosts = self.size = 0
        self.keep = self.expects = self.whole = self.answered = False
        self.chunks: list[bytes] = []
        self.exchange: Exchanged | None = None


def encoded(message: Message, reply: Reply, more: Headers, tail: bytes) -> bytes:
    """The answer to a message as bytes, ``more`` headers than its own in it; ``tail`` ends its head.

    Raises:
        ValueError: a header's value has an end of line in it.
    """
    body, parts = reply.body, [_LINES[reply.status]]
    if reply.status not in _BODILESS:
        parts.append(b"content-type: %s\r\ncontent-length: %d\r\n" % (reply.content_type.encode(), len(body)))
    if reply.headers:
        parts += [line(name.encode(), value.encode()) for name, value in reply.headers.items() if name != "connection"]
    parts += [line(name, value) for name, value in more]
    if not message.keep:
        parts.append(_CLOSE)
    parts.append(tail)
    if message.method != "HEAD":
        parts.append(body)
    return b"".join(parts)


def refusal(status: int, tail: bytes) -> bytes:
    """The answer of a connection that ends with it, one of `REFUSALS`; ``tail`` ends its head."""
    body = msgspec.json.encode({"error": {"field": None, "message": REFUSALS[status][1], "request_id": None}})
    head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
    retry = b"retry-after: 1\r\n" if status == 503 else b""
    return b"".join([_LINES[status], head, retry, _CLOSE, tail, body])


@lru_cache(maxsize=256)
def parsed_url(url: bytes) -> tuple[str, bytes]:
    """Path, decoded, and query.

    Raises:
        ValueError: it is no URL of a request to a server; ``httptools`` has its own errors for some.
    """
    parsed = httptools.parse_url(url)
    path: str = parsed.path.decode("ascii")
    return (unquote(path) if "%" in path else path), parsed.query or b""


def line(name: bytes, value: bytes) -> bytes:
    """A header field.

    Raises:
        ValueError: the value has an end of line in it.
    """
    if b"\r" in value or b"\n" in value:
        raise ValueError(f"Header {name!r} has an end of line in its value.")
    return b"%s: %s\r\n" % (name, value)
