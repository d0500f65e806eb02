"""Busy clients, each on a kept-alive connection of its own, that notice every request that is not answered."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
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

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), b"connection: close" in head, body.decode()


async def _client(port: int, request: bytes, tally: Tally, stop: threading.Event, pause: float) -> None:
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
                    writer.write(request)
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
                    tally.said[body.split('"message":')[-1].split(',"request_id"')[0]] += 1
                tally.longest = max(tally.longest, time.monotonic() - begun)
                await asyncio.sleep(pause)


def post(path: str, body: bytes) -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextlib.contextmanager
def load(port: int, request: bytes, clients: int, pause: float = 0.0) -> Iterator[Tally]:
    """``clients`` that ask again ``pause`` seconds after an answer, while the context lasts and until their last answer."""
    tally, stop = Tally(), threading.Event()

    async def all_clients() -> None:
        await asyncio.gather(*(_client(port, request, tally, stop, pause) for _ in range(clients)))

    thread = threading.Thread(target=lambda: asyncio.run(all_clients()))
    thread.start()
    try:
        yield tally
    finally:
        stop.set()
        thread.join()
