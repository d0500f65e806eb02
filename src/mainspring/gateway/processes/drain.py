"""A server that leaves without losing a request: it accepts what waits, answers what comes, then goes."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from mainspring.gateway.door.wire import Wire

LINGER_SECONDS = 1.0
TICK_SECONDS = 0.1
_LOOK_SECONDS = 0.01
_LEAVE_SECONDS = 0.001
_MORE = 16
_log = logging.getLogger(__name__)


class DrainingServer:
    """Accepts connections until ``should_exit``, which is looked at every `TICK_SECONDS`.

    Of processes that listen on one socket the first to wake could get all connections that wait. One that is not ``alone`` takes one,
    more if it holds many already, and leaves the next to the others for a millisecond. At the end connections that wait to be accepted
    are accepted first, and every answer from then on says ``Connection: close``; connections that bring nothing are closed when all has
    been quiet for `LINGER_SECONDS`, those that still wait for an answer after ``grace`` seconds.
    ``draining`` is called when the end begins, ``every_second`` about once a second until then and a last time after the last answer.
    """

    def __init__(
        self,
        connect: Callable[[], asyncio.Protocol],
        wire: Wire,
        *,
        tls: ssl.SSLContext | None,
        grace: float,
        draining: Callable[[], None],
        every_second: Callable[[], None] = lambda: None,
        alone: bool = True,
    ) -> None:
        self._connect, self._wire, self._tls, self._grace = connect, wire, tls, grace
        self._draining, self._every_second, self._alone = draining, every_second, alone
        self._entering: set[asyncio.Task[object]] = set()
        self.started = self.should_exit = self._hurried = False

    def stop(self, *, hurry: bool = False) -> None:
        """Begin to end; who has asked for that before may ``hurry`` it, and nothing is waited for any more."""
        self._hurried = hurry and self.should_exit
        self.should_exit = True

    async def serve(self, listener: socket.socket) -> None:
        """Accept, serve, drain, end."""
        listener.setblocking(False)
        self._listen(listener)
        self.started = True
        ticks = 0
        while not self.should_exit:
            if ticks % round(1 / TICK_SECONDS) == 0:
                self._every_second()
            ticks += 1
            await asyncio.sleep(TICK_SECONDS)
        await self._drain(listener)
        self._every_second()

    async def _drain(self, listener: socket.socket) -> None:
        self._draining()
        self._wire.draining = True
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._grace
        loop.remove_reader(listener)
        while self._accept(listener):
            pass
        listener.close()
        if self._entering:
            await asyncio.wait(self._entering)
        await self._linger(loop, ends)
        for connection in list(self._wire.open):
            connection.shutdown()
        while self._wire.open and loop.time() < ends and not self._hurried:
            await asyncio.sleep(_LOOK_SECONDS)
        for connection in list(self._wire.open):
            connection.abort()

    def _listen(self, listener: socket.socket) -> None:
        if not self._wire.draining:
            asyncio.get_running_loop().add_reader(listener, self._accept_some, listener)

    def _accept_some(self, listener: socket.socket) -> None:
        for _ in range(1 + len(self._wire.open) // _MORE):
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
        task = loop.create_task(loop.connect_accepted_socket(self._connect, connection, ssl=self._tls))
        self._entering.add(task)
        task.add_done_callback(self._entered)
        return True

    def _entered(self, task: asyncio.Task[object]) -> None:
        self._entering.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.info("A connection did not come about: %s", task.exception())

    async def _linger(self, loop: asyncio.AbstractEventLoop, ends: float) -> None:
        """Until no connection is left, or none has brought a request for `LINGER_SECONDS`, or all has to end."""
        wire = self._wire
        quiet_since = loop.time()
        answered = wire.answered
        while wire.open and loop.time() - quiet_since < LINGER_SECONDS and loop.time() < ends and not self._hurried:
            await asyncio.sleep(_LOOK_SECONDS)
            if wire.answered != answered or any(connection.busy for connection in wire.open):
                answered, quiet_since = wire.answered, loop.time()
