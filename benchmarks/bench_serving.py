"""One model behind HTTP: the whole product path beside a bare application and beside other servers, each on one core.

All get the same rows, 30 named columns with an id and an instant; ours also validates, routes, counts and logs each prediction.
Then the same path with features from a store, under open load. QUICK leaves stores and all peers but FastAPI out.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import lightgbm
import numpy as np
from harness import QUICK, Bar, bar, peer, write
from http_load import Contender, Measured, at, ratios, rounds
from processes import CLIENT_CORE, Served, on_core
from serving_model import SYSTEM, fitted, requests, save
from serving_peers import peer_bars
from serving_stores import store_bars
from single_row import single_row_bars

ROUNDS = 3 if QUICK else 5
CHECKED = 200
HERE = Path(__file__).parent
FLOOR, OURS, FASTAPI = "bare", "mainspring", "FastAPI"


def main() -> int:
    booster = fitted()
    x, bodies = requests(2_000)
    expected = np.asarray(lightgbm.Booster(model_str=booster.ensemble.text).predict(x[:CHECKED], num_threads=1), dtype=np.float64)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        workspace = Path(folder) / "workspace"
        model = save(booster, workspace)
        all_ = _contenders(model, workspace)
        servers = {one.name: (one, running.enter_context(one.start(bodies[0]))) for one in all_}
        for one, server in servers.values():
            one.check(server, bodies[:CHECKED], expected)
        with on_core(CLIENT_CORE):
            measured = rounds(ROUNDS, list(servers.values()), bodies)
        bars = _bars(measured, {name: server for name, (_, server) in servers.items()})
        if not QUICK:
            bars += peer_bars(servers[OURS], model, bodies, expected)
    if not QUICK:
        with tempfile.TemporaryDirectory() as folder:
            bars += store_bars(Path(folder))
    return write("serving", [*bars, *single_row_bars()])


def _contenders(model: Path, workspace: Path) -> list[Contender]:
    ours = [sys.executable, "-m", "mainspring.gateway", "--workspace", str(workspace), "--port"]
    bare = [sys.executable, str(HERE / "bare_model.py"), str(model)]
    fastapi = [str(peer("fastapi")), str(HERE / "peers" / "fastapi_serving.py"), str(model)]
    path = f"/v1/{SYSTEM.name}?explain=false"
    return [
        Contender(FLOOR, lambda port: [*bare, str(port)]),
        Contender(OURS, lambda port: [*ours, str(port)], path, "/readyz"),
        Contender(FASTAPI, lambda port: [*fastapi, str(port)]),
    ]


def _bars(measured: dict[tuple[str, int], Measured], servers: dict[str, Served]) -> list[Bar]:
    figures = [one for (name, count), found in measured.items() for one in found.bars(at(name, count))]
    ours, floor, fastapi = (measured[name, 64] for name in (OURS, FLOOR, FASTAPI))
    boot, memory = servers[OURS].boot, servers[OURS].memory_mib()
    return [
        *figures,
        bar("processor a request over bare, 64 connections", "x", ratios(ours.cpu, floor.cpu), bar=2.0),
        bar("requests/s over FastAPI, 64 connections", "x", ratios(ours.rate, fastapi.rate), bar=2.4, above=True),
        bar("p50 over bare, 1 connection", "x", ratios(measured[OURS, 1].p50, measured[FLOOR, 1].p50), bar=2.0),
        bar("from start to ready", "s", [boot], floor=servers[FLOOR].boot, peer=servers[FASTAPI].boot, bar=2.0),
        bar("memory after load", "MiB", [memory], floor=servers[FLOOR].memory_mib(), peer=servers[FASTAPI].memory_mib()),
        bar("memory over bare", "x", [memory / servers[FLOOR].memory_mib()], bar=1.3),
    ]


if __name__ == "__main__":
    sys.exit(main())
