"""An HTTP client for replays: keep-alive connections, one request in flight on each, latencies measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import httptools
import numpy as np
import numpy.typing as npt


@dataclass(slots=True)
class Answered:
    """What a batch of requests came to: latencies in microseconds, counts by status, the bodies that were no 200.

    ``seconds`` is the time spent asking, ``explained`` how many asked for reasons.
    """

    latencies_us: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    failures: list[tuple[int, bytes]] = field(default_factory=list)
    seconds: float = 0.0
    explained: int = 0

    def add(self, other: Answered) -> None:
        """Take in another batch's figures."""
        self.latencies_us += other.latencies_us
        self.failures += other.failures
        self.seconds += other.seconds
        self.explained += other.explained
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count

    def latencies(self) -> npt.NDArray[np.float32]:
        """Latencies as an array of shape ``(n,)``, microseconds."""
        return np.array(self.latencies_us, dtype=np.float32)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status, body = self._parser.get_status_code(), b"".join(self._body)
        self._begin()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self._waiting = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Client:
    """A fixed number of connections to one server on this machine; an async context manager."""

    def __init__(self, port: int, connections: int = 4) -> None:
        self._port = port
        self._count = connections
        self._connections: list[_Connection] = []

    async def __aenter__(self) -> Client:
        loop = asyncio.get_running_loop()
        pairs = [await loop.create_connection(_Connection, "127.0.0.1", self._port) for _ in range(self._count)]
        self._connections = [protocol for _, protocol in pairs]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connection in self._connections:
            connection.close()

    def request(self, path: str, body: bytes) -> bytes:
        """A POST of JSON as bytes on the wire."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def ask_all(self, requests: Iterable[bytes]) -> Answered:
        """Send every request, as fast as the connections allow, and wait for all answers."""
        answered = Answered()
        queue, started = iter(requests), time.perf_counter()
        await asyncio.gather(*(self._drain(connection, queue, answered) for connection in self._connections))
        answered.seconds = time.perf_counter() - started
        return answered

    async def _drain(self, connection: _Connection, queue: Iterator[bytes], answered: Answered) -> None:
        for request in queue:
            started = time.perf_counter_ns()
            status, body = await connection.ask(request)
            answered.latencies_us.append((time.perf_counter_ns() - started) / 1_000)
            answered.statuses[status] = answered.statuses.get(status, 0) + 1
            if status != 200:
                answered.failures.append((status, body))
