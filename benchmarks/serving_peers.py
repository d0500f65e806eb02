"""The other model servers beside ours, each as it comes and as its documentation tunes it, one at a time: none idles on another's core."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness import Bar, bar, peer, unmeasured
from http_load import CONNECTIONS, Contender, at, ratios, rounds
from processes import CLIENT_CORE, Served, on_core
from serving_model import NAMES

from mainspring.models.protocol import Floats

ROUNDS, HERE = 3, Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A server of ``peers/`` in one of its modes, and how many times its rate at 64 connections is ours to be."""

    environment: str
    mode: str
    contender: Contender
    times: float


def peer_bars(ours: tuple[Contender, Served], model: Path, bodies: Sequence[bytes], expected: Floats) -> list[Bar]:
    """Every peer's figures; of one that does not start, answers otherwise or not at all, an unmeasured bar."""
    return [one for other in _peers(model) for one in _beside(ours, other, bodies, expected)]


def _beside(ours: tuple[Contender, Served], other: Peer, bodies: Sequence[bytes], expected: Floats) -> list[Bar]:
    name, limit = other.contender.name, f"requests/s over {other.contender.name}, 64 connections"
    print(f"Beside {name}", file=sys.stderr)
    try:
        peer(other.environment)
        with other.contender.start(bodies[0]) as running:
            other.contender.check(running, bodies[: len(expected)], expected)
            with on_core(CLIENT_CORE):
                measured = rounds(ROUNDS, [ours, (other.contender, running)], bodies)
            memory = running.memory_mib()
            boot = running.boot
    except (SystemExit, subprocess.CalledProcessError) as error:
        return [unmeasured(limit, "x", str(error), bar=other.times, above=True)]
    figures = [one for count in CONNECTIONS for one in measured[name, count].bars(at(name, count))]
    rates = ratios(measured[ours[0].name, 64].rate, measured[name, 64].rate)
    start = [bar(f"{name}, from start to ready", "s", [boot]), bar(f"{name}, memory after load", "MiB", [memory])]
    return [*figures, *start, bar(limit, "x", rates, bar=other.times, above=True)]


def _peers(model: Path) -> list[Peer]:
    def made(name: str, environment: str, mode: str, times: float, **other: Any) -> Peer:
        python = str(HERE.parent / ".peers" / environment / "bin" / "python")
        script = str(HERE / "peers" / f"{environment}_serving.py")
        return Peer(environment, mode, Contender(name, lambda port: [python, script, str(model), str(port), mode], **other), times)

    v2 = {"path": "/v2/models/bench/infer", "body": _tensor, "score": lambda answer: answer["outputs"][0]["data"][0]}
    return [
        made("LitServe", "litserve", "default", 12.0, path="/predict"),
        made("LitServe, tuned", "litserve", "tuned", 12.0, path="/predict"),
        made("BentoML", "bentoml", "default", 18.0, path="/predict"),
        made("BentoML, batching", "bentoml", "tuned", 18.0, path="/predict", body=_listed, score=itemgetter(0)),
        made("MLServer, in process", "mlserver", "in-process", 5.0, **v2),
        made("MLServer, its pool", "mlserver", "pool", 5.0, **v2),
        made("Ray Serve", "rayserve", "default", 40.0),
        made("Ray Serve, tuned", "rayserve", "tuned", 40.0),
    ]


def _tensor(body: bytes) -> bytes:
    """The row in the Open Inference Protocol."""
    row = json.loads(body)
    tensor = {"name": "x", "shape": [1, len(NAMES)], "datatype": "FP64", "data": [row[name] for name in NAMES]}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def _listed(body: bytes) -> bytes:
    """The row as a batch of one."""
    return b'{"rows":[' + body + b"]}"
