"""Requests and answers on one connection: in order, in pieces, whole, and as another server would have it."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import pytest
import uvicorn
from gateway_service import TRIP
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_client import connected, rest

from mainspring.gateway import background
from mainspring.gateway.app import App
from mainspring.gateway.asgi import AsgiApp
from mainspring.gateway.settings import Limits, Settings

BODY = json.dumps(TRIP).encode()
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
ASK = b"POST /v1/eta?explain=false HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"POST /v1/eta HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"


def answers(connection: socket.socket, count: int) -> list[tuple[int, dict[str, str], bytes]]:
    """So many answers: status, headers, body."""
    file = connection.makefile("rb")
    found = []
    for _ in range(count):
        status = int(file.readline().split()[1])
        headers = dict(line.decode().rstrip().split(": ", 1) for line in iter(file.readline, b"\r\n"))
        found.append((status, headers, file.read(int(headers.get("content-length", "0")))))
    return found


def test_many_requests_in_one_piece_are_answered_in_order(url):
    with connected(url) as connection:
        connection.sendall((HEALTH + ASK + CHUNKED) * 200)
        found = answers(connection, 600)
    assert [status for status, _, _ in found] == [200] * 600
    assert found[0][2] == b'{"status":"ok"}'
    assert all(b"minutes" in body for _, _, body in found[1::3])
    assert all(re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"]) for _, headers, _ in found)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_wherever_it_is_cut(url, sizes):
    sent = HEALTH + ASK + CHUNKED + ASK
    with connected(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        place = 0
        for size in sizes:
            connection.sendall(sent[place : place + size])
            place += size
            time.sleep(0.001)
        connection.sendall(sent[place:])
        assert [status for status, _, _ in answers(connection, 4)] == [200] * 4


def test_what_is_no_http_is_told_after_the_answers_to_what_came_before(url):
    with connected(url) as connection:
        connection.sendall(ASK + ASK + b"NONSENSE\r\n\r\n")
        received = rest(connection)
    assert re.findall(rb"HTTP/1\.1 (\d\d\d) ", received) == [b"200", b"200", b"400"]


def test_a_body_that_breaks_off_wrongly(url):
    with connected(url) as connection:
        connection.sendall(b"POST /v1/eta HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        received = rest(connection)
    assert re.findall(rb"HTTP/1\.1 (\d\d\d) ", received) == [b"400"]


def test_an_offer_to_speak_another_protocol_is_passed_over(url):
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    upgrading = HEALTH[:-2] + offer + b"\r\n"
    with connected(url) as connection:
        connection.sendall(upgrading + ASK)
        assert [status for status, _, _ in answers(connection, 2)] == [200, 200]
        connection.sendall(ASK[: ASK.index(b"\r\n\r\n") + 2] + offer + b"\r\n" + BODY)
        assert answers(connection, 1)[0][0] == 200
        connection.sendall(HEALTH)
        assert answers(connection, 1)[0][0] == 200


def test_a_client_that_waits_to_be_told_to_go_on(url):
    head = b"POST /v1/eta HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    with connected(url) as connection:
        connection.sendall(head % len(BODY))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert answers(connection, 1)[0][0] == 200
        connection.sendall(head % len(BODY) + BODY)
        assert answers(connection, 1)[0][0] == 200
        connection.sendall(head % 48_000_000)
        assert answers(connection, 1)[0][0] == 413


def test_heads_have_no_body_and_old_clients_no_second_answer(url):
    with connected(url) as connection:
        connection.sendall(b"HEAD /docs HTTP/1.1\r\nhost: a\r\n\r\n" + HEALTH)
        file = connection.makefile("rb")
        lines = list(iter(file.readline, b"\r\n"))
        assert lines[0] == b"HTTP/1.1 200 OK\r\n"
        assert any(line.startswith(b"content-length: ") and len(line) > 20 for line in lines)
        assert file.readline() == b"HTTP/1.1 200 OK\r\n"
    with connected(url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n" + HEALTH)
        received = rest(connection)
        assert received.count(b"HTTP/1.1 200") == 1
        assert b"connection: close\r\n" in received


def test_fields_after_the_body_are_not_looked_at(url):
    with connected(url) as connection:
        connection.sendall(CHUNKED[:-2] + b"x-request-id: from-below\r\n\r\n")
        assert answers(connection, 1)[0][1]["x-request-id"] != "from-below"


def test_a_client_that_leaves_before_its_request_is_whole_is_counted(service):
    with background(service) as url:
        with connected(url) as connection:
            connection.sendall(ASK[:-5])
            time.sleep(0.1)
        time.sleep(0.1)
        with connected(url) as connection:
            connection.sendall(HEALTH.replace(b"/healthz", b"/metrics"))
            text = answers(connection, 1)[0][2].decode()
    assert 'mainspring_requests_total{route="/v1/eta",system="eta",status="499"' in text
    assert "mainspring_in_flight 0" in text


@pytest.fixture(scope="module")
def other(service):
    """The same application under uvicorn."""
    app = AsgiApp(App(service))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(
    "request_",
    [
        *(HEALTH, ASK, CHUNKED, ASK.replace(b"/v1/eta", b"/v1/e%74a"), HEALTH.replace(b"/healthz", b"/%zz/\xc3")),
        *(HEALTH.replace(b"GET", b"BREW"), HEALTH.replace(b"GET", b"PUT"), HEALTH.replace(b"/healthz", b"*").replace(b"GET", b"OPTIONS")),
        ASK.replace(b"host: a", b"host: a\r\nx-request-id: mine"),
        ASK.replace(b"host: a", b"host: a\r\nconnection: close"),
        ASK.replace(b"explain=false", b"explain=perhaps"),
        b"POST /v1/eta HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        b"POST /v1/eta HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http://elsewhere/healthz?a=b HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_another_server_answers_the_same(url, other, request_):
    def asked(where: str) -> tuple[int, str | None, bytes]:
        with connected(where) as connection:
            connection.sendall(request_)
            status, headers, body = answers(connection, 1)[0]
        assert status == 400 or "date" in headers
        return status, headers.get("connection"), re.sub(rb'"request_id":("[0-9a-f]{32}"|null)', b"", body)

    ours, theirs = asked(url), asked(other)
    assert ours[0] == theirs[0]
    if ours[0] != 400:
        assert ours == theirs


def test_pipelines_do_not_pass_limits(service):
    with background(service, settings=Settings(limits=Limits(body=20))) as url, connected(url) as connection:
        connection.sendall(HEALTH + ASK + HEALTH)
        received = rest(connection)
    assert re.findall(rb"HTTP/1\.1 (\d\d\d) ", received) == [b"200", b"413"]
