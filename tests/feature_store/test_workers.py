"""Workers: the dead are started again, with patience; the living end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

import mainspring as ms
from mainspring.clock import SECOND, ManualClock, SystemClock
from mainspring.feature_store.workers import Job, Workers
from mainspring.storage.event_log import EventLog

paid = ms.Source("paid", {"id": str, "at": datetime, "card": str, "x": float}, event_time="at", event_id="id")
system = ms.System("s", "?", paid, [paid.per("card").count()], ms.Label(paid, "x", on="id", matures_after="1d"), ms.LightGBM())


def payments(first: int, count: int) -> pa.RecordBatch:
    ids = [f"p{number}" for number in range(first, first + count)]
    times = list(range(first, first + count))
    cards = [f"c{number % 5}" for number in range(count)]
    return pa.RecordBatch.from_pydict(
        {"id": ids, "at": times, "card": cards, "x": [1.0] * count, "_event_id": ids, "_event_time": times, "_known_time": times}
    )


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    log = EventLog(tmp_path / "log", fsync=False)
    log.append("paid", payments(0, 20))
    return log


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(system.to_json(), f"file:{tmp_path}/log", f"lmdb:{tmp_path}/online?shards=2", tmp_path / "dead", poll_seconds=0.01)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_dies_is_started_again_and_catches_up(job: Job, log: EventLog) -> None:
    with Workers(job, SystemClock()) as workers:
        wait_until(lambda: all(state.progress.offset == 20 for state in workers.watch()))
        killed, other = (state.pid for state in workers.states)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        log.append("paid", payments(20, 5))
        wait_until(lambda: all(state.progress.offset == 25 for state in workers.watch()))
        assert [state.restarts for state in workers.states] == [1, 0]
        assert workers.states[0].pid not in (killed, None)
        assert workers.states[1].pid == other
        assert workers.states[0].progress.events == 5, "the new process has passed only what was left"
    for state in workers.states:
        with pytest.raises(ProcessLookupError):
            os.kill(state.pid or 0, 0)


def test_the_wait_before_a_start_doubles(job: Job, tmp_path: Path, log: EventLog) -> None:
    broken = Job(job.system, job.log, "redis://127.0.0.1:1/0", job.dead_letters)
    clock = ManualClock(0)
    with Workers(broken, clock, longest_wait_us=2 * SECOND) as workers:
        for restarts, wait in enumerate((SECOND // 2, SECOND, 2 * SECOND, 2 * SECOND)):
            wait_until(lambda: workers.watch()[0].pid is None)
            clock.advance_to(clock.now() + wait - 1)
            assert (workers.watch()[0].pid, workers.states[0].restarts) == (None, restarts)
            clock.advance_to(clock.now() + 1)
            workers.watch()
            assert workers.states[0].pid is not None
            assert workers.states[0].restarts == restarts + 1


SUPERVISOR = """
import sys, time
from pathlib import Path
from mainspring.clock import SystemClock
from mainspring.feature_store.workers import Job, Workers

job = Job(Path(sys.argv[1]).read_text(), sys.argv[2], sys.argv[3], Path(sys.argv[4]), poll_seconds=0.01)
with Workers(job, SystemClock()) as workers:
    while not all(state.progress.offset for state in workers.watch()):
        time.sleep(0.02)
    print(*(state.pid for state in workers.states), flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_when_the_process_that_started_them_is_killed(job: Job, log: EventLog, tmp_path: Path) -> None:
    (tmp_path / "system.json").write_text(job.system)
    command = [sys.executable, "-c", SUPERVISOR, tmp_path / "system.json", job.log, job.online, job.dead_letters]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        assert len(pids) == 2
        supervisor.kill()
    wait_until(lambda: not any(map(alive, pids)))
