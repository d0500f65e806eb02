"""A bare server for the tests of load: it answers at once, or as the body says, such as ``{"sleep": 0.1}`` or ``{"status": 503}``."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time

import msgspec
import uvicorn


async def app(scope, receive, send):
    assert scope["type"] == "http"
    asked = msgspec.json.decode((await receive())["body"] or b"{}")
    await asyncio.sleep(asked.get("sleep", 0))
    time.sleep(asked.get("block", 0))
    headers = [(b"connection", b"close")] if asked.get("close") else []
    pieces = [b"{}"] if not asked.get("pieces") else [b"{", b"}"]
    headers += [] if asked.get("pieces") else [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": asked.get("status", 200), "headers": headers})
    for number, piece in enumerate(pieces):
        await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces) - 1})


@contextlib.contextmanager
def serving():
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/x"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_config=None)).run([listener])
