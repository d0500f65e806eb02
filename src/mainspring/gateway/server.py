"""The process around the application: a socket first, then uvicorn, then a quiet end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import uvicorn

from mainspring.errors import ServingError
from mainspring.gateway.app import App
from mainspring.gateway.door import Door, open_door
from mainspring.gateway.drain import DrainingServer
from mainspring.gateway.listening import BACKLOG, listen
from mainspring.gateway.service import Service
from mainspring.gateway.settings import Settings
from mainspring.gateway.shared_counts import SharedCounts

GRACE_SECONDS = 10
STUCK_SECONDS = 15
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    *services: Service,
    host: str = "127.0.0.1",
    port: int = 0,
    settings: Settings | None = None,
    announce: Callable[[int], None] | None = None,
    exit_with_parent: bool = False,
    listener: socket.socket | None = None,
    shared: SharedCounts | None = None,
) -> None:
    """Serve systems under ``settings`` until SIGTERM or SIGINT, answer what has begun and what comes on open connections meanwhile; return.

    ``port`` 0 takes a free one; ``announce`` gets the actual one as soon as connections are accepted. With
    ``exit_with_parent`` it also ends when standard input closes. Of several processes that serve together each gets the
    ``listener`` that they have in common, and ``shared``, what the others have counted. Call it from the main thread.

    Raises:
        DeclarationError: two services have the same system.
        ServingError: the address cannot be bound.
    """
    door = open_door(settings or Settings(), shared)
    server, listener = _server(services, door), listener or listen(host, port)
    with _stopped_by_signals(server):
        gc.collect()
        gc.freeze()
        if announce is not None:
            announce(listener.getsockname()[1])
        if exit_with_parent:
            threading.Thread(target=_await_end_of_input, args=(server,), daemon=True).start()
        _run(server, door, listener)


@contextlib.contextmanager
def background(*services: Service, host: str = "127.0.0.1", port: int = 0, settings: Settings | None = None) -> Iterator[str]:
    """Serve in a thread of this process while the context lasts; gives the base URL.

    Raises:
        DeclarationError: two services have the same system.
        ServingError: the address cannot be bound, or the server does not start.
    """
    door = open_door(settings or Settings())
    server, listener = _server(services, door), listen(host, port)
    bound = listener.getsockname()[1]
    thread = threading.Thread(target=_run, args=(server, door, listener), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    if not server.started:
        listener.close()
        raise ServingError(f"Server, {host}:{bound}: it did not start. Its log says why.")
    try:
        yield f"{'http' if door.certificate is None else 'https'}://{host}:{bound}"
    finally:
        server.should_exit = True
        thread.join()


def _server(services: Sequence[Service], door: Door) -> uvicorn.Server:
    certificate = door.certificate
    app = App(*services, door=door)
    config = uvicorn.Config(
        app,
        loop="auto",
        http=cast(Any, _connections(door)),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=cast(Any, door.settings.timeouts.idle),
        ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=BACKLOG,
    )

    def draining() -> None:
        app.draining = True

    return DrainingServer(config, draining, door.metrics.share)


def _run(server: uvicorn.Server, door: Door, listener: socket.socket) -> None:
    async def serve() -> None:
        try:
            await server.serve(sockets=[listener])
        finally:
            await door.close()

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve())


def _connections(door: Door) -> Any:
    """What makes connections; on Windows, which has no httptools, they are uvicorn's own and have no limits."""
    if sys.platform == "win32":
        return "auto"
    from mainspring.gateway.connection import GuardedProtocol

    return partial(GuardedProtocol, door.wire)


@contextlib.contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Let the signals stop the server before uvicorn listens to them, and end nothing when uvicorn raises them again."""

    def stop(*_: object) -> None:
        server.should_exit = True

    before = {one: signal.signal(one, stop) for one in _SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _await_end_of_input(server: uvicorn.Server) -> None:
    """Stop the server when standard input ends, and a process that is stuck even if nobody is left to kill it."""
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    server.should_exit = True
    time.sleep(STUCK_SECONDS)
    os._exit(1)
