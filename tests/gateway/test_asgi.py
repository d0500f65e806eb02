from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mainspring.errors import RequestError
from mainspring.gateway.asgi import Disconnected, read_body

CHUNK = b"x" * 65_536
LIMIT = 16 * len(CHUNK)


class Sender:
    """A client that sends ``chunks`` pieces and then, unless it is whole, leaves."""

    def __init__(self, chunks: int, whole: bool = True) -> None:
        self.chunks, self.whole, self.sent = chunks, whole, 0

    async def receive(self) -> dict[str, Any]:
        if self.sent == self.chunks:
            return {"type": "http.disconnect"}
        self.sent += 1
        return {"type": "http.request", "body": CHUNK, "more_body": self.sent < self.chunks or not self.whole}


def test_a_body_in_pieces_is_joined():
    assert asyncio.run(read_body(Sender(16).receive, LIMIT)) == CHUNK * 16


def test_of_too_large_a_body_no_more_is_read_than_shows_it():
    sender = Sender(10_000)
    with pytest.raises(RequestError, match="larger than 1048576 bytes"):
        asyncio.run(read_body(sender.receive, LIMIT))
    assert sender.sent == 17


def test_a_client_that_leaves():
    with pytest.raises(Disconnected):
        asyncio.run(read_body(Sender(3, whole=False).receive, LIMIT))
