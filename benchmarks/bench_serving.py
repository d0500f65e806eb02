"""One model behind HTTP: the whole product path beside a bare application and beside other servers, each on one core.

All get the same bodies, 30 named columns with an id and an instant; ours also validates, routes, counts and logs each prediction.
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import lightgbm
import numpy as np
from harness import QUICK, Bar, bar, peer, write
from processes import CLIENT_CORE, Served, free_port, on_core, served
from serving_model import SYSTEM, fitted, requests, save
from single_row import single_row_bars

from mainspring.loop.connection import post
from mainspring.loop.load.drive import Settings, Target, drive_closed
from mainspring.models.protocol import Floats

ROUNDS, SECONDS, WARM_UP = (3, 1.0, 0.3) if QUICK else (9, 2.0, 0.5)
CONNECTIONS = (1, 16, 64)
CHECKED = 200
HERE = Path(__file__).parent
FLOOR, OURS, FASTAPI = "bare", "mainspring", "FastAPI"


@dataclass
class Measured:
    """Of one server and number of connections, a value a round."""

    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> int:
    booster = fitted()
    x, bodies = requests(2_000)
    expected = np.asarray(lightgbm.Booster(model_str=booster.ensemble.text).predict(x[:CHECKED], num_threads=1), dtype=np.float64)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        text = save(booster, Path(folder) / "workspace")
        servers = {
            name: running.enter_context(_start(name, text, Path(folder) / "workspace", bodies[0])) for name in (FLOOR, OURS, FASTAPI)
        }
        for name, server in servers.items():
            _check(name, server, bodies[:CHECKED], expected)
        measured = {(name, count): Measured() for name in servers for count in CONNECTIONS}
        with on_core(CLIENT_CORE):
            for _ in range(ROUNDS):
                for (name, count), found in measured.items():
                    _measure(servers[name], bodies, count, found)
        bars = _bars(measured, servers)
    return write("serving", [*bars, *single_row_bars()])


def _start(name: str, model: Path, workspace: Path, body: bytes) -> AbstractContextManager[Served]:
    port = free_port()
    if name == OURS:
        command = [sys.executable, "-m", "mainspring.gateway", "--workspace", str(workspace), "--port", str(port), "--no-stream"]
        return served(command, port, f"/v1/{SYSTEM.name}?explain=false", "/readyz", None)
    if name == FLOOR:
        return served([sys.executable, str(HERE / "bare_model.py"), str(model), str(port)], port, "/", "/", body)
    return served([str(peer("fastapi")), str(HERE / "peers" / "fastapi_serving.py"), str(model), str(port)], port, "/", "/", body)


def _check(name: str, server: Served, bodies: Sequence[bytes], expected: Floats) -> None:
    """The server's answers are the booster's to 1e-12."""
    answers = []
    for body in bodies:
        request = urllib.request.Request(server.url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as response:
            answers.append(json.load(response)["score"])
    if not np.allclose(answers, expected, rtol=0, atol=1e-12):
        raise SystemExit(f"{name} answers otherwise than the model, by up to {np.abs(np.array(answers) - expected).max()}.")


def _measure(server: Served, bodies: Sequence[bytes], connections: int, found: Measured) -> None:
    target = Target.of(server.url)
    wire = [post(f"{target.host}:{target.port}", target.path, body) for body in bodies]
    drive_closed(target, wire, WARM_UP, Settings(0, connections))
    before = server.cpu_seconds()
    load = drive_closed(target, wire, SECONDS, Settings(0, connections))
    used = server.cpu_seconds() - before
    if load.failures:
        raise SystemExit(f"{server.url}: {load.failures}")
    found.rate.append(load.rate)
    found.p50.append(load.percentile(0.5) * 1e3)
    found.p99.append(load.percentile(0.99) * 1e3)
    found.cpu.append(used / load.answered * 1e6)


def _bars(measured: dict[tuple[str, int], Measured], servers: dict[str, Served]) -> list[Bar]:
    bars = []
    for (name, count), one in measured.items():
        at = f"{name}, {count} connection{'s' if count > 1 else ''}"
        bars += [bar(f"{at}", "1/s", one.rate), bar(f"{at}, p50", "ms", one.p50), bar(f"{at}, p99", "ms", one.p99)]
        bars.append(bar(f"{at}, processor", "us", one.cpu))
    ours, floor, fastapi = (measured[name, 64] for name in (OURS, FLOOR, FASTAPI))
    boot, memory = servers[OURS].boot, servers[OURS].memory_mib()
    return [
        *bars,
        bar("processor a request over bare, 64 connections", "x", _ratios(ours.cpu, floor.cpu), bar=2.0),
        bar("requests/s over FastAPI, 64 connections", "x", _ratios(ours.rate, fastapi.rate), bar=2.4, above=True),
        bar("p50 over bare, 1 connection", "x", _ratios(measured[OURS, 1].p50, measured[FLOOR, 1].p50), bar=2.0),
        bar("from start to ready", "s", [boot], floor=servers[FLOOR].boot, peer=servers[FASTAPI].boot, bar=2.0),
        bar("memory after load", "MiB", [memory], floor=servers[FLOOR].memory_mib(), peer=servers[FASTAPI].memory_mib()),
        bar("memory over bare", "x", [memory / servers[FLOOR].memory_mib()], bar=1.3),
    ]


def _ratios(ours: Sequence[float], other: Sequence[float]) -> list[float]:
    return [mine / theirs for mine, theirs in zip(ours, other, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
