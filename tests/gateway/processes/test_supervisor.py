"""The supervisor with small programs as processes: patience, beginnings that fail, renewals that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mainspring.gateway.processes.child import Post

SUPERVISOR = """
import json, sys
from mainspring.gateway.processes.listening import listen
from mainspring.gateway.processes.supervisor import Supervisor

command = lambda number: [sys.executable, "-c", sys.argv[1], str(number)]
changed = lambda ready, restarts: print(json.dumps([ready, restarts]), flush=True)
Supervisor(listen("127.0.0.1", 0), command, 2, changed=changed).run(lambda: print("up", flush=True), end_of=0)
"""
LIVES = "import sys; print('ready', flush=True); sys.stdin.read()"


@contextmanager
def supervising(program: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    while (line := process.stdout.readline().strip()) != wanted:
        assert line, "it ended"


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_the_wait_doubles_to_half_a_minute_and_is_forgotten_after_a_steady_life() -> None:
    post = Post("Worker 0", lambda _: [], (0,))
    assert [post.wait_longer(100.0, 99.0) for _ in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert post.not_before == 130.0
    assert [post.wait_longer(200.0, 190.0), post.wait_longer(200.0, 199.0)] == [0, 0.5]


def test_it_ends_with_its_input_and_takes_everyone_along() -> None:
    with supervising(LIVES) as process:
        read_until(process, "up")
        both = children(process)
        _, said = process.communicate(timeout=20)
        assert (process.returncode, said, len(both)) == (0, "", 2)
        assert not any(Path(f"/proc/{pid}").exists() for pid in both)


def test_what_never_was_up_fails_with_its_last_words() -> None:
    with supervising("raise SystemExit('no such folder')") as process:
        assert process.wait(20) == 1
        assert process.stderr is not None
        said = process.stderr.read()
        assert "ended with exit 1 before the server was up. Its last words: no such folder" in said


def test_it_never_gives_up(tmp_path: Path) -> None:
    mark = tmp_path / "broken"
    with supervising(f"import os, sys\nif os.path.exists({str(mark)!r}): raise SystemExit(3)\n{LIVES}") as process:
        read_until(process, "up")
        mark.touch()
        os.kill(children(process)[0], signal.SIGKILL)
        read_until(process, json.dumps([1, {"SIGKILL": 1, "exit 3": 2}]))
        mark.unlink()
        read_until(process, json.dumps([2, {"SIGKILL": 1, "exit 3": 2}]))
        process.terminate()
        assert "ended with exit 3; the next starts in 0.5 s. It said nothing." in process.communicate(timeout=20)[1]


def test_a_renewal_whose_successor_dies_changes_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "broken"
    with supervising(f"import os, sys\nif os.path.exists({str(mark)!r}): raise SystemExit(3)\n{LIVES}") as process:
        read_until(process, "up")
        before = children(process)
        mark.touch()
        process.send_signal(signal.SIGHUP)
        time.sleep(1.0)
        assert children(process) == before
        process.terminate()
        assert "is not replaced, nor are the next: its successor ended with exit 3." in process.communicate(timeout=20)[1]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_ends_last(sent: signal.Signals) -> None:
    with supervising(LIVES) as process:
        read_until(process, "up")
        both = children(process)
        process.send_signal(sent)
        assert process.wait(20) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in both)
