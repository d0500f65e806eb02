from __future__ import annotations

import contextlib
import re
import select
import time

import httpx
import pytest
from gateway_service import TRIP
from raw_client import connected, rest

from mainspring.gateway import background
from mainspring.gateway.settings import Limits, Seconds, Settings, Timeouts

HEAD = b"POST /v1/eta HTTP/1.1\r\nhost: a\r\n"
SHORT = Timeouts(head=Seconds(0.3), body=Seconds(0.3), idle=Seconds(0.5), write=Seconds(0.5), connections=3)


@pytest.fixture(scope="module")
def strict(service):
    with background(service, settings=Settings(timeouts=SHORT, limits=Limits(head=2000, url=300, headers=20))) as url:
        yield url


def test_a_head_that_is_never_whole(strict):
    for begun in (b"", b"\r\n", b"P", HEAD + b"x: "):
        with connected(strict) as connection:
            connection.sendall(begun)
            began = time.monotonic()
            assert rest(connection).startswith(b"HTTP/1.1 408")
            assert time.monotonic() - began < 1.5


def test_trickling_does_not_help(strict):
    with connected(strict) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 4:
                connection.sendall(b"\r\n")
                time.sleep(0.05)
        assert time.monotonic() - began < 3.5


def test_an_idle_connection_is_ended(strict):
    with connected(strict) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert rest(connection) == b""
        assert 0.3 < time.monotonic() - began < 2


def test_a_client_that_does_not_read(strict):
    with connected(strict) as connection:
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            connection.sendall(b"GET /docs HTTP/1.1\r\nhost: a\r\n\r\n" * 2000)
        poll, until = select.poll(), time.monotonic() + 15
        poll.register(connection, 0)
        while not poll.poll(100) and time.monotonic() < until:
            pass
        assert time.monotonic() < until
    assert httpx.get(f"{strict}/healthz", trust_env=False).status_code == 200


def test_one_connection_too_many(strict):
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(strict))
        time.sleep(0.05)
        last = stack.enter_context(connected(strict))
        answer = rest(last)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer
    time.sleep(0.1)
    assert httpx.get(f"{strict}/healthz", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 400 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 30 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 3000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 300_000, 431),
    ],
)
def test_too_large_a_head(strict, sent, status):
    with connected(strict) as connection:
        connection.sendall(sent)
        assert rest(connection).startswith(f"HTTP/1.1 {status}".encode())


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 3\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 3\r\n",
        b"content-length: 3\r\ncontent-length: 4\r\n",
        b"content-length: +3\r\n",
        b"content-length: 3, 3\r\n",
        b"content-length: 0x3\r\n",
        b"content-length: -1\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding:\x0bchunked\r\n",
        b"x: y\r\n transfer-encoding: chunked\r\n",
        b"host: b\r\n",
        b"x\x00: y\r\n",
        b"content-length: 3\ntransfer-encoding: chunked\r\n",
    ],
)
def test_shapes_of_smuggling_are_refused(url, head):
    with connected(url) as connection:
        connection.sendall(HEAD + head + b"\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = rest(connection)
        assert answer.startswith(b"HTTP/1.1 400"), answer
        assert len(re.findall(rb"HTTP/1\.1 \d\d\d ", answer)) == 1


def test_no_host(url):
    with connected(url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_client_that_sends_on_still_sees_413(url, chunked):
    with connected(url) as connection:
        size = b"transfer-encoding: chunked" if chunked else b"content-length: 48000000"
        connection.sendall(HEAD + size + b"\r\n\r\n")
        piece = b"x" * 65_536
        frame = b"10000\r\n" + piece + b"\r\n" if chunked else piece
        for _ in range(60):
            connection.sendall(frame)
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer


def test_a_body_that_is_not_read_leaves_the_connection_whole(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        for _ in range(3):
            assert client.post("/nothing/here", content=b"x" * 300_000).status_code == 404
        assert client.post("/v1/eta", json=TRIP).status_code == 200
