"""The floor of the serving benchmark: an ASGI application that reads a body, parses it, and answers with as many bytes."""

from __future__ import annotations

from typing import Any

import msgspec

ANSWER = b'{"minutes": 361.0, "low": 340.0, "high": 390.0, "version": "model:eta:1", "answered_by": "model"}'


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    message = await receive()
    msgspec.json.decode(message["body"] or b"{}")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})
