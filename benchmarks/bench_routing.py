"""What a challenger in shadow costs the requests: one server, the same load with and without it in turn.

The load is open at a steady rate, where every request's shadow score is made, and closed by many connections, where they are shed.
"""

from __future__ import annotations

import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
from harness import QUICK, bar, interleaved, write
from processes import CLIENT_CORE, free_port, on_core, served
from serving_model import SYSTEM, fitted, requests, save

from mainspring.clock import SystemClock
from mainspring.loop.connection import post
from mainspring.loop.load.drive import Settings, Target, drive, drive_closed
from mainspring.model_registry.registry import open_registry
from mainspring.storage.workspace import Workspace

ROUNDS, SECONDS, WARM_UP = (5, 2.0, 0.3) if QUICK else (15, 4.0, 0.5)
RATE, CONNECTIONS = 1_000, 64


def main() -> int:
    booster = fitted()
    _, bodies = requests(2_000)
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "workspace"
        save(booster, space)
        _register_again(space)
        port = free_port()
        command = [sys.executable, "-m", "mainspring.gateway", "--workspace", str(space), "--port", str(port), "--no-stream"]
        with served(command, port, f"/v1/{SYSTEM.name}?explain=false", "/readyz", None) as server, on_core(CLIENT_CORE):
            target = Target.of(server.url)
            wire = [post(f"{target.host}:{target.port}", target.path, body) for body in bodies]
            due = np.arange(0, int((WARM_UP + SECONDS) * 1e9), int(1e9 / RATE), dtype=np.int64)

            def open_loop(shadow: bool) -> float:
                _decide(space, shadow)
                drive_closed(target, wire, 0.2, Settings(0, 1))
                return drive(target, wire, due, Settings(WARM_UP, CONNECTIONS)).percentile(0.99) * 1e3

            def closed_loop(shadow: bool) -> float:
                _decide(space, shadow)
                return drive_closed(target, wire, SECONDS, Settings(WARM_UP, CONNECTIONS)).percentile(0.99) * 1e3

            measured = interleaved(
                ROUNDS,
                {
                    "open": lambda: open_loop(False),
                    "open, shadow": lambda: open_loop(True),
                    "closed": lambda: closed_loop(False),
                    "closed, shadow": lambda: closed_loop(True),
                },
            )
            shed = _unshadowed(port)
    bars = [bar(f"p99, {name}", "ms", values) for name, values in measured.items()]
    for name, what in (("open", f"{RATE} requests/s"), ("closed", f"{CONNECTIONS} connections")):
        ratios = [with_ / without for with_, without in zip(measured[f"{name}, shadow"], measured[name], strict=True)]
        bars.append(bar(f"p99 with a challenger in shadow over without, {what}", "x", ratios, bar=1.05))
    bars.append(bar("answers whose shadow score was shed", "1", [shed]))
    return write("routing", bars)


def _register_again(folder: Path) -> None:
    """A second version, which answers as the first."""
    registry = open_registry(Workspace(folder).registry_url)
    first = registry.version(f"model:{SYSTEM.name}:1")
    artifacts = {name: registry.artifact(first, name) for name in first.artifacts}
    registry.register("model", SYSTEM.name, first.manifest, artifacts, at=SystemClock().now())
    registry.close()


def _decide(folder: Path, shadow: bool) -> None:
    """Put the second version in shadow, or take it out."""
    registry = open_registry(Workspace(folder).registry_url)
    if (registry.deployment(SYSTEM.name).challenger is not None) is not shadow:
        action = "shadow" if shadow else "roll_back"
        registry.decide(SYSTEM.name, action, f"model:{SYSTEM.name}:2", at=SystemClock().now(), by="benchmark", reason="a round")
    registry.close()


def _unshadowed(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("mainspring_unshadowed_total{"))


if __name__ == "__main__":
    sys.exit(main())
