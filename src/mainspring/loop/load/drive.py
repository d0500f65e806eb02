"""The generator: an open loop that keeps its schedule, and a closed one that asks as fast as it is answered.

Sources: Schroeder et al., "Open versus closed: a cautionary tale", 2006; Tene, "How not to measure latency", 2015.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mainspring.errors import DataError, ServingError
from mainspring.loop.connection import Connection
from mainspring.loop.load.histogram import Nanoseconds
from mainspring.loop.load.recorder import CLOSED, OPEN, Load, Recorder

Watch = Callable[[float, float], None]
_SPIN = 2_000_000
_TICK = 0.05
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: ``http://host[:port]/path``."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """The parts of an address.

        Raises:
            DataError: it is no address of that form.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 80
        except ValueError as error:
            raise DataError(f"Address {url!r}: {error}. Write for example http://127.0.0.1:8000/v1/eta.") from error
        if parts.scheme != "http" or not host:
            raise DataError(f"Address {url!r} is not http://HOST[:PORT]/PATH. Write for example http://127.0.0.1:8000/v1/eta.")
        return cls(host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds left out at the start, most connections, seconds until a request counts as timed out."""

    warm_up: float = 2.0
    connections: int = 64
    timeout: float = 5.0


def _quiet(done: float, total: float) -> None:
    del done, total


def drive(target: Target, requests: Sequence[bytes], due: Nanoseconds, settings: Settings, watch: Watch = _quiet) -> Load:
    """Open loop: requests in turn, each at its instant in ``due`` (nanoseconds, rising), whether or not earlier ones came back.

    Connections are opened as they are needed, up to the most; beyond that requests wait, and the wait counts. What was due during
    the warm-up is not counted. ``watch`` gets the seconds done and the seconds in all.

    Raises:
        ServingError: nothing listens there.
    """
    return _run(_Generator(target, requests, settings, watch).open(due))


def drive_closed(target: Target, requests: Sequence[bytes], seconds: float, settings: Settings, watch: Watch = _quiet) -> Load:
    """Closed loop: every connection asks again as soon as it is answered, for so many seconds after the warm-up.

    Raises:
        ServingError: nothing listens there.
    """
    return _run(_Generator(target, requests, settings, watch).closed(seconds))


class _Generator:
    def __init__(self, target: Target, requests: Sequence[bytes], settings: Settings, watch: Watch) -> None:
        self._target = target
        self._requests = requests
        self._settings = settings
        self._watch = watch
        self._recorder = Recorder()
        self._idle: list[Connection] = []
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._flying: dict[Connection, int] = {}
        self._opening = 0
        self._open: set[Connection] = set()
        self._most = 0
        self._counted_from = 0
        self._opened: set[asyncio.Task[None]] = set()
        self._again: Callable[[Connection], None] = self._rest

    async def open(self, due: Nanoseconds) -> Load:
        await self._connect()
        start = time.perf_counter_ns() + 10_000_000
        self._counted_from = start + int(self._settings.warm_up * 1e9)
        seconds = max(float(due[-1]) / 1e9 - self._settings.warm_up, 1e-9)
        sending = asyncio.create_task(self._send(due + start))
        while not sending.done() or self._flying or self._waiting:
            await self._tick(start, float(due[-1]) / 1e9)
        sending.result()
        counted = int((due >= self._settings.warm_up * 1e9).sum())
        return await self._finish(OPEN, counted / seconds, seconds)

    async def closed(self, seconds: float) -> Load:
        start = time.perf_counter_ns()
        self._counted_from = start + int(self._settings.warm_up * 1e9)
        end = self._counted_from + int(seconds * 1e9)
        place = 0

        def again(connection: Connection) -> None:
            nonlocal place
            now = time.perf_counter_ns()
            if now >= end:
                return
            if connection.usable:
                self._flying[connection] = now
                connection.send(self._requests[place % len(self._requests)])
                place += 1

        self._again = again
        for _ in range(self._settings.connections):
            await self._connect()
        while time.perf_counter_ns() < end:
            self._grow(self._settings.connections)
            await self._tick(start, self._settings.warm_up + seconds)
        return await self._finish(CLOSED, None, seconds)

    async def _send(self, due: Nanoseconds) -> None:
        """Sleep until shortly before the next instant, then yield until it has come: timers are a millisecond wide."""
        requests, count, late, counted_from = self._requests, len(self._requests), self._recorder.late, self._counted_from
        for number, at in enumerate(due.tolist()):
            now = time.perf_counter_ns()
            while now < at:
                await asyncio.sleep((at - now - _SPIN) / 1e9 if at - now > _SPIN else 0)
                now = time.perf_counter_ns()
            if at >= counted_from:
                late(now - at)
            request = requests[number % count]
            if self._idle:
                connection = self._idle.pop()
                self._flying[connection] = at
                connection.send(request)
            else:
                self._waiting.append((at, request))
                self._grow(self._opening + 1)
            if number % 64 == 63:
                await asyncio.sleep(0)

    async def _tick(self, start: int, total: float) -> None:
        await asyncio.sleep(_TICK)
        now = time.perf_counter_ns()
        self._time_out(now)
        began = len(self._recorder.moments)
        if now >= self._counted_from + (began + 1) * _SECOND:
            self._recorder.close_second(float(began))
        self._watch(min((now - start) / 1e9, total), total)

    def _time_out(self, now: int) -> None:
        latest = now - int(self._settings.timeout * 1e9)
        for connection in [one for one, at in self._flying.items() if at < latest]:
            at = self._flying.pop(connection)
            connection.close()
            self._fail("timeout", at, now - at)
        while self._waiting and self._waiting[0][0] < latest:
            at, _ = self._waiting.popleft()
            self._fail("timeout", at, now - at)

    def _fail(self, kind: str, at: int, waited: int | None = None) -> None:
        if at >= self._counted_from:
            self._recorder.failed(kind, waited)

    def _answered(self, connection: Connection, status: int, _: bytes) -> None:
        now = time.perf_counter_ns()
        at = self._flying.pop(connection, None)
        if at is not None and at >= self._counted_from:
            if 200 <= status < 300:
                self._recorder.answered(now - at)
            else:
                self._recorder.failed(str(status))
        if connection.usable:
            self._again(connection)
        else:
            connection.close()

    def _rest(self, connection: Connection) -> None:
        if self._waiting:
            at, request = self._waiting.popleft()
            self._flying[connection] = at
            connection.send(request)
        else:
            self._idle.append(connection)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        at = self._flying.pop(connection, None)
        if at is not None:
            self._fail("connection lost", at)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._grow(len(self._waiting))

    def _grow(self, wanted: int) -> None:
        """Open connections until so many are on their way, or in a closed loop there, but never more than the most."""
        room = self._settings.connections - len(self._open) - self._opening
        for _ in range(min(room, wanted - self._opening)):
            self._opening += 1
            task = asyncio.create_task(self._reconnect())
            self._opened.add(task)
            task.add_done_callback(self._opened.discard)

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except ServingError:
            while self._waiting and not self._open:
                self._fail("no connection", self._waiting.popleft()[0])
        finally:
            self._opening -= 1

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered, self._lost), self._target.host, self._target.port
            )
        except OSError as error:
            raise ServingError(
                f"Nothing answers at http://{self._target.host}:{self._target.port} ({error}). Start it: mainspring serve SYSTEM."
            ) from error
        self._open.add(connection)
        self._most = max(self._most, len(self._open))
        self._again(connection)

    async def _finish(self, mode: str, asked_rate: float | None, seconds: float) -> Load:
        self._flying.clear()
        await asyncio.gather(*self._opened)
        for connection in list(self._open):
            connection.close()
        while self._open:
            await asyncio.sleep(0)
        self._recorder.close_second(float(len(self._recorder.moments)))
        return self._recorder.finish(mode, self._most, asked_rate, seconds)


def _run(driving: Coroutine[Any, Any, Load]) -> Load:
    if sys.platform == "win32":
        return asyncio.run(driving)
    import uvloop

    return uvloop.run(driving)
