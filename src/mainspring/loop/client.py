"""An HTTP client for replays: keep-alive connections, all requests as fast as they answer, latencies measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import numpy.typing as npt

from mainspring.loop.connection import Connection, post


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


class Client:
    """A fixed number of connections to one server on this machine; an async context manager."""

    def __init__(self, port: int, connections: int = 4) -> None:
        self._port = port
        self._count = connections
        self._connections: list[Connection] = []
        self._waiting: dict[Connection, asyncio.Future[tuple[int, bytes]]] = {}

    async def __aenter__(self) -> Client:
        loop = asyncio.get_running_loop()
        pairs = [
            await loop.create_connection(lambda: Connection(self._answered, self._lost), "127.0.0.1", self._port)
            for _ in range(self._count)
        ]
        self._connections = [protocol for _, protocol in pairs]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connection in self._connections:
            connection.close()

    def request(self, path: str, body: bytes) -> bytes:
        """A POST of JSON as bytes on the wire."""
        return post(f"127.0.0.1:{self._port}", path, body)

    async def ask_all(self, requests: Iterable[bytes]) -> Answered:
        """Send every request, as fast as the connections allow, and wait for all answers.

        Raises:
            ConnectionError: the server closed a connection with a request in flight.
        """
        answered = Answered()
        queue, started = iter(requests), time.perf_counter()
        await asyncio.gather(*(self._drain(connection, queue, answered) for connection in self._connections))
        answered.seconds = time.perf_counter() - started
        return answered

    async def _drain(self, connection: Connection, queue: Iterator[bytes], answered: Answered) -> None:
        for request in queue:
            started = time.perf_counter_ns()
            self._waiting[connection] = asyncio.get_running_loop().create_future()
            connection.send(request)
            status, body = await self._waiting[connection]
            answered.latencies_us.append((time.perf_counter_ns() - started) / 1_000)
            answered.statuses[status] = answered.statuses.get(status, 0) + 1
            if status != 200:
                answered.failures.append((status, body))

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        self._waiting.pop(connection).set_result((status, body))

    def _lost(self, connection: Connection) -> None:
        waiting = self._waiting.pop(connection, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(ConnectionError("the server closed the connection"))
