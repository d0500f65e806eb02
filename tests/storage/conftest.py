from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def child() -> Callable[..., subprocess.Popen[str]]:
    """Start a Python program, given as text, with arguments; its output can be read line by line."""

    def start(code: str, *args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, args)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

    return start


@pytest.fixture
def kill_at() -> str:
    """Text of a program's first lines: it kills itself before change number ``argv[1]`` (from 1) to a file under ``argv[2]``."""
    return """
import os, signal, sys
from pathlib import Path

changes = 0

def count(event, arguments):
    global changes
    made = event in ("os.rename", "os.remove") or (event == "open" and str(arguments[0]).endswith(".tmp"))
    if made and str(arguments[0]).startswith(sys.argv[2]):
        changes += 1
        if changes == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
"""
