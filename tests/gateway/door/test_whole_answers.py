"""An answer leaves in one piece: whoever reads its head has its body."""

from __future__ import annotations

import pytest

from mainspring.gateway.door.connection import Whole


class Wire:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.write = self.sent.append

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.sent.append(b"closed")


def whole(alone: bool = False) -> tuple[Whole, list[bytes]]:
    wire = Wire()
    return Whole(wire, alone=alone), wire.sent  # type: ignore[arg-type]


def test_a_head_waits_for_its_body() -> None:
    transport, sent = whole()
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert sent == []
    transport.write(b"{}")
    assert sent == [b"HTTP/1.1 200 OK\r\n\r\n{}"]


@pytest.mark.parametrize("body", [b"", b"HTTP/1.1 is what this body begins with"])
def test_whatever_the_body_is(body: bytes) -> None:
    transport, sent = whole()
    transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    transport.write(body)
    transport.write(b"more")
    assert sent == [b"HTTP/1.1 204 No Content\r\n\r\n" + body, b"more"]


def test_what_says_go_on_does_not_wait() -> None:
    transport, sent = whole()
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert sent == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_a_head_that_has_no_body_does_not_wait() -> None:
    transport, sent = whole(alone=True)
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert len(sent) == 1
