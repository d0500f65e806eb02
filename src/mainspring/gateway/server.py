"""The process around the application: a socket first, then an event loop, then a quiet end."""

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
from typing import TYPE_CHECKING

import uvloop

from mainspring.errors import ServingError
from mainspring.gateway.app import App
from mainspring.gateway.door.connection import Connection
from mainspring.gateway.door.door import Door, open_door
from mainspring.gateway.exchange import Exchange
from mainspring.gateway.processes.drain import DrainingServer
from mainspring.gateway.processes.listening import listen, reserved
from mainspring.gateway.processes.parent import when_parent_is_gone
from mainspring.gateway.processes.shared_counts import SharedCounts
from mainspring.gateway.service import Service
from mainspring.gateway.settings import Settings

if TYPE_CHECKING:
    from mainspring.gateway.adapters.grpc_inference import GrpcInference

GRACE_SECONDS = 10
STUCK_SECONDS = 15
SWITCH_SECONDS = 0.0005
"""How soon a busy event loop lets the thread of the batches run: with Python's own 5 ms a slow model waits for it at every step."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    *services: Service,
    host: str = "127.0.0.1",
    port: int = 0,
    settings: Settings | None = None,
    announce: Callable[[int, int | None], None] | None = None,
    exit_with_parent: bool = False,
    listener: socket.socket | None = None,
    shared: SharedCounts | None = None,
) -> None:
    """Serve systems under ``settings`` until SIGTERM or SIGINT, answer what has begun and what comes on open connections meanwhile; return.

    ``port`` 0 takes a free one; ``announce`` gets the actual one as soon as connections are accepted, and that of gRPC, None
    where the settings ask for none, which answers as soon as HTTP does. With ``exit_with_parent`` it also ends when standard input
    closes. Of several processes that serve together each gets the ``listener`` that they have in common, and ``shared``, what the
    others have counted. Call it from the main thread.

    Raises:
        DeclarationError: two services have the same system.
        ServingError: an address cannot be bound.
        MissingExtraError: a package that a setting needs is not installed.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = settings or Settings()
    door = open_door(settings, shared)
    with reserved(host, settings.grpc.port) as rpc_port:
        listener = listener or listen(host, port)
        running = _Running(services, door, listener, host, rpc_port, alone=shared is None)
        with _stopped_by_signals(running.server):
            gc.collect()
            gc.freeze()
            if announce is not None:
                announce(listener.getsockname()[1], rpc_port)
            if exit_with_parent:
                when_parent_is_gone(partial(_ended, running.server))
            running.run()


@contextlib.contextmanager
def background(*services: Service, host: str = "127.0.0.1", port: int = 0, settings: Settings | None = None) -> Iterator[str]:
    """Serve in a thread of this process while the context lasts; gives the base URL.

    Raises:
        DeclarationError: two services have the same system.
        ServingError: the address cannot be bound, or the server does not start.
    """
    settings = settings or Settings()
    door = open_door(settings)
    with reserved(host, settings.grpc.port) as rpc_port:
        listener = listen(host, port)
        bound = listener.getsockname()[1]
        running = _Running(services, door, listener, host, rpc_port)
        thread = threading.Thread(target=running.run, daemon=True)
        thread.start()
        while not running.server.started and thread.is_alive():
            time.sleep(0.005)
        if not running.server.started:
            listener.close()
            raise ServingError(f"Server, {host}:{bound}: it did not start. Its log says why.")
        try:
            yield f"{'http' if door.certificate is None else 'https'}://{host}:{bound}"
        finally:
            running.server.should_exit = True
            thread.join()


class _Running:
    """The application with its servers: HTTP, and gRPC on ``rpc_port``."""

    def __init__(
        self, services: Sequence[Service], door: Door, listener: socket.socket, host: str, rpc_port: int | None, *, alone: bool = True
    ) -> None:
        self._app = App(*services, door=door)
        self._door = door
        self._listener = listener
        self._rpc = None if rpc_port is None else _rpc(self._app, host, rpc_port)
        self.server = DrainingServer(
            partial(Connection, partial(Exchange, self._app), door.wire),
            door.wire,
            tls=None if door.certificate is None else door.certificate.context,
            grace=GRACE_SECONDS,
            draining=self._drain,
            every_second=door.metrics.share,
            alone=alone,
        )

    def run(self) -> None:
        """Serve until told to stop."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            if self._rpc is not None:
                await self._rpc.start()
            await self.server.serve(self._listener)
            if self._rpc is not None:
                await self._rpc.ended()
        finally:
            await self._door.close()

    def _drain(self) -> None:
        self._app.draining = True
        if self._rpc is not None:
            self._rpc.drain(GRACE_SECONDS)


def _rpc(app: App, host: str, port: int) -> GrpcInference:
    from mainspring.gateway.adapters.grpc_inference import GrpcInference

    return GrpcInference(app, host, port)


@contextlib.contextmanager
def _stopped_by_signals(server: DrainingServer) -> Iterator[None]:

    def stop(number: int, _: object) -> None:
        server.stop(hurry=number == signal.SIGINT)

    before = {one: signal.signal(one, stop) for one in _SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _ended(server: DrainingServer) -> None:
    """Stop the server, and a process that is stuck even if nobody is left to kill it."""
    server.should_exit = True
    time.sleep(STUCK_SECONDS)
    os._exit(1)
