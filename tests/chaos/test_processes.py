"""Processes that serve, black box: killed, told to end and replaced under load."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.load import load
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="children of a process are looked up in /proc")


@pytest.fixture
def server(space: Workspace) -> Iterator[ServerProcess]:
    with ServerProcess(space.path, workers=2) as server:
        yield server


def busy() -> bool:
    """Whether others keep the cores of this machine occupied: bars of wall time are not held then."""
    stalled = float(Path("/proc/pressure/cpu").read_text().split("avg10=")[1].split()[0]) if Path("/proc/pressure/cpu").exists() else 0.0
    return stalled > 10 or os.getloadavg()[0] > (os.cpu_count() or 1) + 1


def children(server: ServerProcess) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]


def workers(server: ServerProcess) -> list[int]:
    return [pid for pid in children(server) if b"--listener" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def metric(server: ServerProcess, name: str) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as reply:
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", reply.read().decode(), re.MULTILINE)
    return sum(map(float, found))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(true: Callable[[], bool], seconds: float) -> float:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        time.sleep(0.02)
    return time.monotonic() - begun


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_takes_only_what_it_was_answering_and_is_back(
    server: ServerProcess, request_bytes: bytes, number: signal.Signals
) -> None:
    before = set(workers(server))
    with load(server.port, request_bytes, 16, pause=0.01) as tally:
        time.sleep(0.5)
        os.kill(min(before), number)
        begun = time.monotonic()
        wait_until(lambda: len(set(workers(server)) - before) == 1, 5)
        wait_until(lambda: metric(server, "mainspring_workers_ready") == 2, 20)
        back, spent = time.monotonic() - begun, cpu_seconds(*(set(workers(server)) - before))
        time.sleep(0.3)
    assert spent <= 2.0, "of CPU time, which a busy machine does not stretch"
    assert back <= 2.0 or busy(), "of wall time, where the machine has a core for each worker"
    assert not tally.said
    assert len(tally.lost) <= 16
    assert (tally.hung, tally.refused) == (0, 0)
    assert metric(server, f'mainspring_worker_restarts_total{{cause="{number.name}"}}') == 1
    assert f"ended with {number.name}; the next starts in 0.0 s." in (server.log).read_text()


def test_connections_that_wait_outlive_every_worker(server: ServerProcess, request_bytes: bytes) -> None:
    for pid in workers(server):
        os.kill(pid, signal.SIGKILL)
    with load(server.port, request_bytes, 8) as tally:
        wait_until(lambda: tally.answered > 100, 20)
    assert (tally.lost, tally.hung, tally.refused) == ([], 0, 0)
    assert tally.longest <= 2.0 or busy()


def test_told_to_end_it_answers_all_that_is_asked_and_leaves_nobody(server: ServerProcess, request_bytes: bytes) -> None:
    everyone = [server.pid, *children(server)]
    with load(server.port, request_bytes, 64) as tally:
        time.sleep(0.5)
        os.kill(server.pid, signal.SIGTERM)
        begun = time.monotonic()
        assert server.wait() == 0
        ended = time.monotonic() - begun
    assert ended <= tally.longest + 5
    assert (tally.lost, tally.hung) == ([], 0)
    assert not tally.said
    assert tally.refused > 0
    assert not any(map(alive, everyone))


def test_told_to_renew_it_replaces_everyone_and_fails_nothing(server: ServerProcess, request_bytes: bytes) -> None:
    before = set(children(server))
    with load(server.port, request_bytes, 16) as tally:
        time.sleep(0.3)
        server.send(signal.SIGHUP)
        wait_until(lambda: not before & set(children(server)), 20)
        wait_until(lambda: len(workers(server)) == 2, 5)
    assert (tally.lost, tally.hung, tally.refused) == ([], 0, 0)
    assert not tally.said
    assert metric(server, "mainspring_worker_restarts_total") == 0


def test_nobody_outlives_a_supervisor_that_is_killed(server: ServerProcess, request_bytes: bytes) -> None:
    orphans = children(server)
    with load(server.port, request_bytes, 4):
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    wait_until(lambda: not any(map(alive, orphans)), 5)


def test_a_scrape_tells_of_all_workers_and_every_answer_is_in_the_log(
    server: ServerProcess, space: Workspace, request_bytes: bytes
) -> None:
    log = PredictionLog(space.predictions)
    _, cursor = log.read()
    with load(server.port, request_bytes, 8) as tally:
        time.sleep(1.0)
    time.sleep(1.3)
    counted = metric(
        server,
        'mainspring_requests_total{route="/v1/delivery",system="delivery",status="200",answered_by="model",version="model:delivery:1",variant="champion"}',
    )
    assert counted == tally.answered
    rows, after = log.read(cursor)
    assert rows.num_rows == tally.answered
    assert sum(after[worker] > cursor.get(worker, 0) for worker in after) == 2
