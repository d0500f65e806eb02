"""A server of the S3 protocol from a wheel: rclone, which serves a folder's folders as buckets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obstore.store import S3Store

BUCKET = "tests"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret-of-tester"}


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of a server that lives as long as its context, with one bucket; the access keys come into the environment."""
    folder = Path(tempfile.mkdtemp(prefix="s3"))
    (folder / BUCKET).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    os.environ.update(KEYS)
    keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    command = [program, "serve", "s3", "--config", "/dev/null", "--addr", address, "--auth-key", keys, folder]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(address)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def alter(endpoint: str, key: str, data: bytes | None) -> None:
    """Write other bytes under a key of the bucket, or with None remove it."""
    store = S3Store(BUCKET, endpoint=endpoint, client_options={"allow_http": True})
    if data is None:
        store.delete(key)
    else:
        store.put(key, data)


def _wait(address: str) -> None:
    host, port = address.split(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port))).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the server at {address} did not start")
