"""The request path over HTTP: an answer of the flights' system, against a bare application on the same server and client."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from harness import QUICK, bar, interleaved, write

from mainspring.cli.progress import Bars
from mainspring.clock import DAY, parse_duration
from mainspring.loop.client import Answered, Client
from mainspring.loop.replay import request_bodies
from mainspring.loop.run import Run
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.workspace import Workspace
from mainspring.systems.eta import flights, system

ROUNDS, REQUESTS = (3, 400) if QUICK else (9, 2_000)


def main() -> int:
    """Seven weeks of flights as history, one day replayed; then the next days' departures are asked for."""
    with tempfile.TemporaryDirectory() as folder:
        bodies = _prepare(Workspace(Path(folder)))
        with ServerProcess(Path(folder)) as server, _bare() as bare:
            quiet, explained = f"/v1/{system.name}?explain=false", f"/v1/{system.name}"
            _check(server.port, quiet, bodies)
            latency = interleaved(
                ROUNDS,
                {
                    "bare": lambda: _median(_ask(bare, "/", bodies, 1)),
                    "answer": lambda: _median(_ask(server.port, quiet, bodies, 1)),
                    "explained": lambda: _median(_ask(server.port, explained, bodies, 1)),
                },
            )
            loaded: dict[str, list[Answered]] = {"bare": [], "answer": []}
            for _ in range(ROUNDS):
                loaded["bare"].append(_ask(bare, "/", bodies, 4))
                loaded["answer"].append(_ask(server.port, quiet, bodies, 4))
    rates = {name: [len(one.latencies_us) / one.seconds for one in rounds] for name, rounds in loaded.items()}
    tails = [float(np.percentile(one.latencies(), 99)) / 1e3 for one in loaded["answer"]]
    floor, floor_rate = float(np.median(latency["bare"])), float(np.median(rates["bare"]))
    ratios = [mine / theirs for mine, theirs in zip(latency["answer"], latency["bare"], strict=True)]
    promised = system.requirements
    return write(
        "serving_eta",
        [
            bar("answer, one at a time, p50", "ms", latency["answer"], floor=floor),
            bar("answer over bare application", "x", ratios, bar=12.0),
            bar("answer with reasons, p50", "ms", latency["explained"], floor=floor),
            bar("answers, 4 connections", "1/s", rates["answer"], floor=floor_rate, bar=promised.peak_rps, above=True),
            bar("answer, 4 connections, p99", "ms", tails, bar=parse_duration(promised.latency_p99 or "50ms") / 1e3),
        ],
    )


def _prepare(workspace: Workspace) -> list[bytes]:
    full = flights.load()
    start = full.history_until
    small = full.within([system.request, *system.sources], start - 49 * DAY, start + DAY)
    with Bars() as bars:
        run = Run(system, small, workspace, bars, drill=False)
        run.execute()
        run.close()
    trips = full.tables[system.request.name]
    later = trips.filter(pc.greater_equal(trips.column(system.request.event_time), small.end)).slice(0, REQUESTS)
    return list(request_bodies(system.request, later))


def _check(port: int, path: str, bodies: Sequence[bytes]) -> None:
    answered = _ask(port, path, bodies, 4)
    if answered.statuses != {200: len(bodies)}:
        raise SystemExit(f"Not all answers were 200: {answered.statuses}, {answered.failures[:1]}")
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", bodies[0], {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    if answer["answered_by"] != "model":
        raise SystemExit(f"Not the model answered: {answer}")


def _ask(port: int, path: str, bodies: Sequence[bytes], connections: int) -> Answered:
    async def ask() -> Answered:
        async with Client(port, connections) as client:
            return await client.ask_all([client.request(path, body) for body in bodies])

    return asyncio.run(ask())


def _median(answered: Answered) -> float:
    return float(np.median(answered.latencies())) / 1e3


@contextmanager
def _bare() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "bare_asgi:app", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    process = subprocess.Popen(command, cwd=Path(__file__).parent)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    sys.exit(main())
