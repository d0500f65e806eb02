"""What the connections of a server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from mainspring.gateway.settings import Limits, Timeouts

_TICK = 0.25
_IDLE_SECONDS = 0.001


class Connection(Protocol):
    """What a server does with its connections."""

    @property
    def busy(self) -> bool:
        """Whether it has a request that is not answered."""
        ...

    def check(self, now: float) -> None:
        """Show out a client that has had its time, at ``now`` seconds of `time.perf_counter`."""
        ...

    def shutdown(self) -> None:
        """End, at once or after the answer that is due."""
        ...

    def abort(self) -> None:
        """End, whatever is due."""
        ...


class Wire:
    """What the connections of a server share: limits, the sweep that closes them, and how long bytes lie unread.

    ``answered`` counts requests. Once it is ``draining`` every answer ends its connection. ``tail`` ends the head of every answer.

    Bytes that come while handlers run lie in the kernel until the loop reads again; nothing tells for how long. On average
    it is half of the time that the handlers took, which is what counts as waited beside the time since they were read, for all
    that is read in that turn of the loop. What comes later had no handler to wait for, even if all since then was refused.

    Args:
        refused: is told why a connection was closed or a request refused here.
        renew: is called about every quarter of a second.
    """

    def __init__(self, timeouts: Timeouts, limits: Limits, refused: Callable[[str], None], renew: Callable[[], None]) -> None:
        self.timeouts = timeouts
        self.limits = limits
        self.refused = refused
        self.open: set[Connection] = set()
        self.answered = 0
        self.draining = False
        self.tail = _tail()
        self.lag = 0.0
        self._renew = renew
        self._due: float | None = None
        self._next: asyncio.TimerHandle | None = None
        self._busy = self._ended = self._lay = 0.0
        self._ran = False

    def bytes_came(self, now: float) -> float:
        """When bytes that are read now are likely to have come."""
        if self._ran:
            self._lay = self._busy / 2 if now - self._ended < _IDLE_SECONDS else 0.0
            self._busy, self._ran = 0.0, False
            if self._lay:
                asyncio.get_running_loop().call_soon(self._turned)
        return now - self._lay

    def handled(self, began: float, ended: float) -> None:
        """A request, answered or refused, has had the loop to itself from one instant to the other."""
        self._ran = True
        self._busy += ended - began
        self._ended = ended

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to sweep, once."""
        if self._due is None:
            self._due = loop.time() + _TICK
            self._next = loop.call_at(self._due, self._sweep, loop)

    def stop(self) -> None:
        """Sweep no more."""
        if self._next is not None:
            self._next.cancel()

    def _turned(self) -> None:
        """All that lay there has been read."""
        self._lay = 0.0

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._due is not None
        now = loop.time()
        self.lag = max(0.0, now - self._due)
        self._due = now + _TICK
        self._next = loop.call_at(self._due, self._sweep, loop)
        self.tail = _tail()
        moment = time.perf_counter()
        for connection in list(self.open):
            connection.check(moment)
        self._renew()


def _tail() -> bytes:
    return time.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n\r\n", time.gmtime()).encode()
