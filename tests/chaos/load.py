"""Busy clients, each on a kept-alive connection of its own, that notice every request that is not answered."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

DEADLINE_SECONDS = 5.0


@dataclass
class Tally:
    """What became of the requests: ``lost`` were sent and not answered, ``hung`` not in time, ``refused`` found no connection.

    ``said`` are the messages of all that were not answered 200.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    hung: int = 0
    refused: int = 0
    longest: float = 0.0
    kept: list[Given] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())


@dataclass(frozen=True)
class Given:
    """An answer that was kept: which request it is to, when it was there and after how many seconds, and what it says."""

    number: int
    at: float
    seconds: float
    status: int
    body: bytes


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), b"connection: close" in head, body


async def _client(
    port: int, requests: Sequence[bytes], first: int, tally: Tally, stop: threading.Event, pause: float, keep: bool, back_off: float
) -> None:
    number = first
    while not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            tally.refused += 1
            await asyncio.sleep(0.02)
            continue
        with contextlib.closing(writer):
            close = False
            while not close and not stop.is_set():
                begun = time.monotonic()
                try:
                    number = (number + 1) % len(requests)
                    writer.write(requests[number])
                    async with asyncio.timeout(DEADLINE_SECONDS):
                        status, close, body = await _answer(reader)
                except TimeoutError:
                    tally.hung += 1
                    break
                except (OSError, EOFError) as error:
                    tally.lost.append(repr(error))
                    break
                tally.statuses[status] += 1
                if status != 200:
                    tally.said[body.decode().split('"message":')[-1].split(',"request_id"')[0]] += 1
                now = time.monotonic()
                tally.longest = max(tally.longest, now - begun)
                if keep:
                    tally.kept.append(Given(number, now, now - begun, status, body))
                await asyncio.sleep(pause if status < 500 else max(pause, back_off))


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A whole request."""
    lines = [f"POST {path} HTTP/1.1", "host: test", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.contextmanager
def load(
    port: int, request: bytes | Sequence[bytes], clients: int, pause: float = 0.0, *, keep: bool = False, back_off: float = 0.0
) -> Iterator[Tally]:
    """``clients`` that ask again ``pause`` seconds after an answer, while the context lasts and until their last answer.

    Of several requests each client sends one after another; ``keep`` keeps every answer; ``back_off`` is the least pause after a 5xx.
    """
    requests = [request] if isinstance(request, bytes) else request
    tally, stop = Tally(), threading.Event()

    async def all_clients() -> None:
        await asyncio.gather(*(_client(port, requests, first, tally, stop, pause, keep, back_off) for first in range(clients)))

    thread = threading.Thread(target=lambda: asyncio.run(all_clients()))
    thread.start()
    try:
        yield tally
    finally:
        stop.set()
        thread.join()
