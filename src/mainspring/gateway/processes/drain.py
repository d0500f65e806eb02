"""A server that leaves without losing a request: it accepts what waits, answers what comes, then goes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

import uvicorn

LINGER_SECONDS = 1.0
_LOOK_SECONDS = 0.01
_LEAVE_SECONDS = 0.001
_MORE = 16
_log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """uvicorn, with another door and another end.

    Of processes that listen on one socket uvicorn's accept all that wait, and the first to wake gets them all. Here one that is not
    ``alone`` takes one, more if it holds many already, and leaves the next to the others for a millisecond. At the end uvicorn
    closes idle connections at once, which resets a request that is on its way, and forgets connections that wait to be accepted.
    Here those are accepted first, and every answer from then on says ``Connection: close``; connections that bring nothing are
    closed when all has been quiet for `LINGER_SECONDS`.
    ``draining`` is called when the end begins, ``every_second`` about once a second until then and a last time after the last answer.
    """

    def __init__(
        self, config: uvicorn.Config, draining: Callable[[], None], every_second: Callable[[], None] = lambda: None, *, alone: bool = True
    ) -> None:
        super().__init__(config)
        self._alone = alone
        self._accepting = True
        config.callback_notify, config.timeout_notify = _awaitable(every_second), 0
        self._draining = draining
        self._last = every_second
        self._listeners: list[socket.socket] = []
        self._entering: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets=[])
        self._listeners = sockets or []
        for listener in self._listeners:
            listener.setblocking(False)
            self._listen(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Drain, then end as uvicorn does: what still runs has ``timeout_graceful_shutdown`` seconds."""
        self._draining()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        loop = asyncio.get_running_loop()
        self._accepting = False
        for listener in self._listeners:
            loop.remove_reader(listener)
            while self._accept(listener):
                pass
            listener.close()
        if self._entering:
            await asyncio.wait(self._entering)
        for connection in list(self.server_state.connections):
            if _busy(connection):
                connection.shutdown()
        await self._linger(loop)
        await super().shutdown([])
        self._last()

    def _listen(self, listener: socket.socket) -> None:
        if self._accepting:
            asyncio.get_running_loop().add_reader(listener, self._accept_some, listener)

    def _accept_some(self, listener: socket.socket) -> None:
        for _ in range(1 + len(self.server_state.connections) // _MORE):
            if not self._accept(listener):
                break
        if not self._alone:
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(_LEAVE_SECONDS, self._listen, listener)

    def _accept(self, listener: socket.socket) -> bool:
        """Take one connection that waits; False when there is none."""
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:
            _log.warning("A connection could not be accepted: %s", error)
            return False
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        return True

    def _protocol(self) -> asyncio.Protocol:
        make = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

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


def _busy(protocol: object) -> bool:
    cycle = getattr(protocol, "cycle", None)
    return cycle is not None and not cycle.response_complete


def _awaitable(call: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def awaited() -> None:
        call()

    return awaited
