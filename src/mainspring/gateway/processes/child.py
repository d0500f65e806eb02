"""A process of the supervisor's, and the post that it fills."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
STEADY_SECONDS = 10.0
_LAST_WORDS = 20

Command = Callable[[int], list[str]]


class Aside(NamedTuple):
    """A process beside the workers; one that ``stays`` is not replaced with them."""

    title: str
    command: Command
    stays: bool = False


@dataclass(eq=False, slots=True)
class Child:
    """A process that prints a line when it is ready, and ends when its standard input does. Times are monotonic seconds."""

    number: int
    process: subprocess.Popen[bytes]
    started: float
    ready: bool = False
    told: float | None = None
    words: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_WORDS))

    @classmethod
    def start(cls, command: Sequence[str], number: int, descriptors: Sequence[int], now: float) -> Child:
        """Start a process in a group of its own, so that a Ctrl-C at the terminal reaches it only through the supervisor."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=descriptors, process_group=0)
        child = cls(number, process, now)
        for one in child.outputs:
            os.set_blocking(one, False)
        return child

    @property
    def outputs(self) -> list[int]:
        """The descriptors of what it prints: standard output, standard error."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        return [self.process.stdout.fileno(), self.process.stderr.fileno()]

    def hear(self, descriptor: int) -> bytes:
        """What it has printed on one of `outputs`; empty when it will print no more. Words on standard output say that it is ready."""
        try:
            said = os.read(descriptor, 65536)
        except BlockingIOError:
            return b" "
        if said and descriptor == self.outputs[0]:
            self.ready = True
        elif said:
            self.words.extend(said.decode(errors="replace").splitlines())
        return said

    def tell_to_stop(self, now: float) -> None:
        """Ask it to finish what it is doing and end."""
        if self.told is None:
            self.told = now
            self.process.send_signal(signal.SIGTERM)

    def cause(self) -> str:
        """Why it ended: a signal's name, or its exit code."""
        code = self.process.returncode
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def close(self) -> None:
        """Let go of its pipes."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@dataclass(eq=False, slots=True)
class Post:
    """A place that one process fills; while it is replaced, ``successor`` boots and those ``leaving`` drain.

    Of a post that is ``alone`` no two processes ever live at the same time; the process of one that ``stays`` is replaced only when
    it has ended. ``numbers`` are those that its processes may have.
    """

    title: str
    command: Command
    numbers: Sequence[int]
    alone: bool = False
    stays: bool = False
    child: Child | None = None
    successor: Child | None = None
    leaving: list[Child] = field(default_factory=list)
    not_before: float = 0.0
    _wait: float = 0.0

    @property
    def children(self) -> list[Child]:
        """All its processes that live."""
        return [one for one in (self.child, self.successor, *self.leaving) if one is not None]

    @property
    def ready(self) -> bool:
        """Whether its process has said so."""
        return self.child is not None and self.child.ready

    def free_number(self) -> int | None:
        """A number that none of its processes has; None while all are taken."""
        taken = {one.number for one in self.children}
        return next((number for number in self.numbers if number not in taken), None)

    def vacate(self, child: Child) -> None:
        """One of its processes has ended."""
        self.child, self.successor = (None if one is child else one for one in (self.child, self.successor))
        self.leaving = [one for one in self.leaving if one is not child]

    def wait_longer(self, now: float, started: float) -> float:
        """Seconds until the next start, after one at ``started`` failed: 0, 0.5, 1, ... 30, and from 0 again when it lived for 10 s."""
        wait = 0.0 if now - started >= STEADY_SECONDS else self._wait
        self.not_before = now + wait
        self._wait = min(max(2 * wait, FIRST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
        return wait
