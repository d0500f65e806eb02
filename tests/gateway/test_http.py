from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mainspring.errors import RequestError
from mainspring.gateway.http import BODY_LIMIT, DRAIN_LIMIT, Disconnected, read_body

CHUNK = b"x" * 65_536


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
    assert asyncio.run(read_body({}, Sender(16).receive)) == CHUNK * 16
    assert len(CHUNK) * 16 == BODY_LIMIT


def test_too_large_a_body_is_read_to_its_end_so_that_the_client_sees_the_answer():
    sender = Sender(40)
    with pytest.raises(RequestError, match="larger than"):
        asyncio.run(read_body({}, sender.receive))
    assert sender.sent == 40


def test_an_endless_body_is_not_read_to_its_end():
    sender = Sender(10_000)
    with pytest.raises(RequestError, match="larger than"):
        asyncio.run(read_body({}, sender.receive))
    assert sender.sent == DRAIN_LIMIT // len(CHUNK) + 1


def test_a_client_that_leaves():
    with pytest.raises(Disconnected):
        asyncio.run(read_body({}, Sender(3, whole=False).receive))
