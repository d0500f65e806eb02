"""What one server does under load over HTTP: answers checked first, then rate, latencies and processor time at several connections."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from harness import QUICK, Bar, bar
from processes import Served, free_port, served

from mainspring.loop.connection import post
from mainspring.loop.load.drive import Settings, Target, drive_closed
from mainspring.loop.load.search import FAILED
from mainspring.models.protocol import Floats

CONNECTIONS = (1, 16, 64)
SECONDS, WARM_UP = (1.0, 0.3) if QUICK else (2.0, 0.5)


def _same(body: bytes) -> bytes:
    return body


@dataclass(frozen=True)
class Contender:
    """A server as a command for a port: where it answers, how it wants a row's body, where its answer has the score.

    It is ready once ``ready`` answers a GET; without it, once the first row has an answer.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    path: str = "/"
    ready: str = ""
    body: Callable[[bytes], bytes] = _same
    score: Callable[[Any], float] = itemgetter("score")

    def start(self, first: bytes) -> AbstractContextManager[Served]:
        """The running server."""
        port = free_port()
        return served(self.command(port), port, self.path, self.ready or self.path, None if self.ready else self.body(first))

    def check(self, server: Served, bodies: Sequence[bytes], expected: Floats) -> None:
        """Its answers are the booster's to 1e-12, or the benchmark ends."""
        answers = []
        for body in bodies:
            request = urllib.request.Request(server.url, self.body(body), {"content-type": "application/json"})
            with urllib.request.urlopen(request) as response:
                answers.append(self.score(json.load(response)))
        if not np.allclose(answers, expected, rtol=0, atol=1e-12):
            raise SystemExit(f"{self.name} answers otherwise than the model, by up to {np.abs(np.array(answers) - expected).max()}.")


@dataclass
class Measured:
    """Of one server and number of connections, a value a round."""

    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)

    def bars(self, at: str) -> list[Bar]:
        """Its figures; rates are of good answers, of which all but one in a thousand requests are to get one."""
        latencies = [bar(f"{at}, p50", "ms", self.p50), bar(f"{at}, p99", "ms", self.p99)]
        failed = bar(f"{at}, without a good answer", "", self.failed, bar=FAILED)
        return [bar(at, "1/s", self.rate), *latencies, bar(f"{at}, processor", "us", self.cpu), failed]


def rounds(count: int, running: Sequence[tuple[Contender, Served]], bodies: Sequence[bytes]) -> dict[tuple[str, int], Measured]:
    """All servers in turn, at every number of connections, so many times."""
    measured = {(one.name, connections): Measured() for one, _ in running for connections in CONNECTIONS}
    for _ in range(count):
        for one, server in running:
            for connections in CONNECTIONS:
                _measure(server, [one.body(body) for body in bodies], connections, measured[one.name, connections])
    return measured


def ratios(ours: Sequence[float], other: Sequence[float]) -> list[float]:
    """Round by round."""
    return [mine / theirs for mine, theirs in zip(ours, other, strict=True)]


def at(name: str, connections: int) -> str:
    """What a figure is called."""
    return f"{name}, {connections} connection{'s' if connections > 1 else ''}"


def _measure(server: Served, bodies: Sequence[bytes], connections: int, found: Measured) -> None:
    target = Target.of(server.url)
    wire = [post(f"{target.host}:{target.port}", target.path, body) for body in bodies]
    drive_closed(target, wire, WARM_UP, Settings(0, connections))
    before = server.cpu_seconds()
    load = drive_closed(target, wire, SECONDS, Settings(0, connections))
    used = server.cpu_seconds() - before
    if not load.answered:
        raise SystemExit(f"{server.url}: no answer in {SECONDS} s, {load.failures}")
    found.failed.append(load.failed)
    found.rate.append(load.rate)
    found.p50.append(load.percentile(0.5) * 1e3)
    found.p99.append(load.percentile(0.99) * 1e3)
    found.cpu.append(used / load.answered * 1e6)
