from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gateway_service import TRIP, RuleService

from mainspring.errors import ServingError
from mainspring.gateway import background

SCRIPT = Path(__file__).with_name("gateway_service.py")


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=10)
    return process.returncode, out, err


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish_and_serve_return(sent):
    with running() as (process, url):
        answers: list[int] = []
        slow = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/v1/eta", json=TRIP | {"zone": "slow"}, trust_env=False).status_code)
        )
        slow.start()
        time.sleep(0.25)
        process.send_signal(sent)
        slow.join()
        assert answers == [200]
        assert ended(process) == (0, "ended\n", "")


def test_a_signal_right_after_the_announcement_is_not_lost():
    with running() as (process, _):
        process.send_signal(signal.SIGTERM)
        assert ended(process)[:2] == (0, "ended\n")


def test_a_second_interrupt_hurries_the_end():
    with running() as (process, url), socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as waiting:
        waiting.sendall(b"POST /v1/eta HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        time.sleep(2)
        assert process.poll() is None, "the body may still come"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert ended(process)[0] == 0
        assert time.monotonic() - began < 3


def test_it_ends_with_its_parent():
    with running("--with-parent") as (process, url):
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        assert ended(process) == (0, "ended\n", "")  # closes its standard input


def test_without_being_told_it_outlives_its_input():
    with running() as (process, url):
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        time.sleep(0.3)
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServingError, match=f"127.0.0.1:{port}: the address cannot be bound"),
            background(RuleService(tmp_path), port=port),
        ):
            pass


def test_while_it_ends_an_open_connection_is_answered_and_closed_and_not_ready():
    with running() as (process, url), contextlib.closing(http.client.HTTPConnection(url.removeprefix("http://"))) as open_:
        open_.request("GET", "/readyz")
        assert open_.getresponse().read() == b'{"status":"ready"}'
        process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        open_.request("GET", "/readyz")
        reply = open_.getresponse()
        assert (reply.status, reply.getheader("connection")) == (503, "close")
        assert "about to end" in reply.read().decode()
        assert ended(process) == (0, "ended\n", "")
