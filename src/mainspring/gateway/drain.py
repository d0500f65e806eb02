"""A server that leaves without losing a request: it stops accepting, answers what comes on open connections, then goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import uvicorn

LINGER_SECONDS = 1.0
_LOOK_SECONDS = 0.01


class DrainingServer(uvicorn.Server):
    """uvicorn, with another end.

    uvicorn closes idle connections at once, which resets a request that is on its way, and forgets connections that wait to
    be accepted. Here those are accepted first, and every answer from then on says ``Connection: close``; connections that bring
    nothing are closed when all has been quiet for `LINGER_SECONDS`. ``draining`` is called when the end begins, ``every_second`` about once
    a second until then and a last time after the last answer.
    """

    def __init__(self, config: uvicorn.Config, draining: Callable[[], None], every_second: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        config.callback_notify, config.timeout_notify = _awaitable(every_second), 0
        self._draining = draining
        self._last = every_second

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then end as uvicorn does: what still runs has ``timeout_graceful_shutdown`` seconds."""
        self._draining()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        waiting = [connection for one in sockets or [] for connection in _waiting(one)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        for open_ in list(self.server_state.connections):
            if _busy(open_):
                open_.shutdown()
        await self._linger(loop)
        await super().shutdown(sockets)
        self._last()

    async def _linger(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until no connection is left, or none has brought a request for `LINGER_SECONDS`; at most as long as the rest may take."""
        state = self.server_state
        begun = quiet_since = loop.time()
        answered = state.total_requests
        while state.connections and loop.time() - quiet_since < LINGER_SECONDS:
            await asyncio.sleep(_LOOK_SECONDS)
            if loop.time() - begun >= (self.config.timeout_graceful_shutdown or 0):
                return
            if state.total_requests != answered or any(map(_busy, state.connections)):
                answered, quiet_since = state.total_requests, loop.time()

    def _protocol(self) -> asyncio.Protocol:
        make = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _waiting(listener: socket.socket) -> list[socket.socket]:
    """The connections that the system has made and nobody has accepted yet."""
    connections = []
    with contextlib.suppress(OSError):
        while True:
            connections.append(listener.accept()[0])
    return connections


def _busy(protocol: object) -> bool:
    cycle = getattr(protocol, "cycle", None)
    return cycle is not None and not cycle.response_complete


def _awaitable(call: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def awaited() -> None:
        call()

    return awaited
