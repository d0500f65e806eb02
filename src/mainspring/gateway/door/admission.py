"""Overload is refused before any work is done: by how long requests had to wait, not by how many there are."""

from __future__ import annotations

import math

from mainspring.gateway.door.refusal import Refusal
from mainspring.gateway.settings import Overload, Priority

_RETRY = {"retry-after": "1"}
_BUSY = Refusal(503, "overload", "The server has more to do than it can answer in time. Come back in a second or more.", _RETRY)
_FULL = Refusal(503, "in_flight", "The server is answering as many requests as it may at once. Come back in a second or more.", _RETRY)
_LATE = Refusal(504, "deadline", "The deadline that the request brought is over before an answer could be there. Allow it more time.")


class Admission:
    """Decides at the door whether a request can still be answered in time.

    The queue is judged by its delay (Nichols and Jacobson, Controlling Queue Delay, 2012): one whose delay never fell to
    ``target`` during an ``interval`` stands, and is no burst. While it stands, requests that waited longer than ``target`` are
    refused at once; else a burst may wait for an ``interval`` (the form for servers: Maurer, Fail at Scale, 2015). It stands
    until no request of a whole interval waited longer than ``target``. Sheddable requests are the first to be refused,
    critical ones the last.
    """

    def __init__(self, settings: Overload) -> None:
        self._target, self._interval = float(settings.target), float(settings.interval)
        self._most = settings.in_flight
        self._allowed: dict[bool, dict[Priority, float]] = {
            False: {"sheddable": self._target, "default": self._interval, "critical": 10 * self._interval},
            True: {"sheddable": 0.0, "default": self._target, "critical": self._interval},
        }
        self._ends = -math.inf
        self._least, self._longest = math.inf, 0.0
        self.in_flight = 0
        self.standing = False
        self.delay = 0.0

    def admit(
        self, now: float, waited: float, priority: Priority = "default", deadline: float = math.inf, ahead: float = 0.0
    ) -> Refusal | None:
        """None when the request may go on; then `finished` must follow.

        Args:
            now: seconds of a clock that only goes forward.
            waited: seconds since the request's bytes came.
            priority: its class.
            deadline: when its client stops waiting, on the clock of ``now``.
            ahead: seconds that it is still expected to wait in queues behind the door.
        """
        delay = self.delay = waited + ahead
        self._watch(now, delay)
        if now + ahead >= deadline:
            return _LATE
        if delay > self._allowed[self.standing][priority]:
            return _BUSY
        if self.in_flight >= self._most:
            return _FULL
        self.in_flight += 1
        return None

    def finished(self) -> None:
        """A request that was let in has its answer."""
        self.in_flight -= 1

    def _watch(self, now: float, delay: float) -> None:
        if now >= self._ends:
            idle = now >= self._ends + self._interval
            self.standing = not idle and (self._least > self._target or (self.standing and self._longest > self._target))
            self._ends, self._least, self._longest = now + self._interval, delay, delay
        elif delay < self._least:
            self._least = delay
        elif delay > self._longest:
            self._longest = delay
