"""``mainspring serve`` as a process: signals go on to the server, and its end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from delivery import build


def wait_until_told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " on http://" in line
    return line.split(" on ", 1)[1].split()[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_signals_go_on_to_the_server(tmp_path: Path, workers: int) -> None:
    space = build(tmp_path / "space")
    command = [sys.executable, "-m", "mainspring", "serve", "eta", "--workspace", str(space.path), "--port", "0", "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        url = wait_until_told(process)
        if workers > 1:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as reply:
            assert reply.status == 200
        process.terminate()
        assert process.wait(25) == 0
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/readyz", timeout=5)
