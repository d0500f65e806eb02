"""One line of JSON a request, written by a thread of its own: a slow disk makes it drop lines, never requests wait."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import BinaryIO

import msgspec

from mainspring.clock import format_instant
from mainspring.gateway.settings import Log

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.05
_LINES_AT_ONCE = 1_000


class Line(msgspec.Struct, frozen=True):
    """What is kept of a request: never its body, its headers or the key it came with."""

    at: int
    client: str
    system: str
    route: str
    status: int
    seconds: float
    version: str
    variant: str
    answered_by: str
    request_id: str
    trace_id: str


class AccessLog:
    """A bounded queue in front of a file, or of standard error for ``-``.

    Args:
        settings: where to write, which share of the successes, how many lines may wait.
        random: draws the successes that are kept.
    """

    def __init__(self, settings: Log, random: Random) -> None:
        self._settings = settings
        self._random = random
        self._lines: deque[Line] = deque()
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._writer.start()
        self.dropped = 0

    def write(self, line: Line) -> None:
        """Queue a line; a success may be left out by its share, and any line is dropped and counted when too many wait."""
        settings = self._settings
        if line.status < 300 and settings.successes < 1 and self._random.random() >= settings.successes:
            return
        if len(self._lines) >= settings.queue:
            self.dropped += 1
            return
        self._lines.append(line)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._stop.set()
        self._writer.join()

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                file = self._settings.file
                target = sys.stderr.buffer if file == "-" else stack.enter_context(Path(file).open("ab"))
                while not self._stop.wait(_PAUSE_SECONDS):
                    self._drain(target)
                self._drain(target)
        except OSError as error:
            _log.error("Access log %s: it cannot be written (%s). Lines are dropped until the server is started again.", file, error)

    def _drain(self, target: BinaryIO) -> None:
        while self._lines:
            lines = [self._lines.popleft() for _ in range(min(_LINES_AT_ONCE, len(self._lines)))]
            target.write(b"".join(map(_encode, lines)))
        target.flush()


def _encode(line: Line) -> bytes:
    row = {"time": format_instant(line.at), **msgspec.structs.asdict(line)}
    del row["at"]
    row["seconds"] = round(line.seconds, 6)
    return msgspec.json.encode(row) + b"\n"
