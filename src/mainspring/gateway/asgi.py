"""The application for any ASGI server: connections, and what they may take, are that server's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mainspring.errors import RequestError
from mainspring.gateway.app import App
from mainspring.gateway.exchange import Exchange
from mainspring.gateway.http import Head, Headers, Reply, too_large

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Disconnected(Exception):  # noqa: N818
    """The client left before its request was whole."""


class AsgiApp:
    """An `App` as ASGI 3.0 has it, for HTTP alone."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answered: asyncio.Future[tuple[Reply, Headers]] = asyncio.get_running_loop().create_future()
        head = Head(scope["method"], scope["path"], dict(scope["headers"]), scope["query_string"])
        exchange = Exchange(self._app, head, lambda reply, more: answered.set_result((reply, more)))
        if not exchange.done:
            try:
                exchange.whole(await read_body(receive, exchange.limit))
            except Disconnected:
                exchange.leave()
                return
            except RequestError as error:
                exchange.fail(error)
        await send_reply(*await answered, send)


async def read_body(receive: Receive, limit: int) -> bytes:
    """The request's body, of at most ``limit`` bytes; of a larger one no more is read than it takes to see that.

    Raises:
        RequestError: 413 when it is larger.
        Disconnected: the client left.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def send_reply(reply: Reply, more: Headers, send: Send) -> None:
    """Send a whole response, with ``more`` headers than its own."""
    headers: Headers = [(b"content-type", reply.content_type.encode()), (b"content-length", b"%d" % len(reply.body)), *more]
    headers += [(name.encode(), value.encode()) for name, value in (reply.headers or {}).items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
