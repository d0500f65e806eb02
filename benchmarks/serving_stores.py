"""The product path with features from a store, under open load: twelve aggregates of one key, and five hundred candidates a request."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import Bar, bar, unmeasured
from processes import CLIENT_CORE, SERVER_CORE, Served, free_port, on_core, redis_server, served
from serving_shadow import shadow_bars
from serving_systems import CANDIDATES, PAYMENTS, RANKER, candidate_bodies, payment_bodies, payments_workspace, ranker_workspace

from mainspring.loop.connection import post
from mainspring.loop.load.drive import Settings, Target, drive
from mainspring.loop.load.recorder import Load
from mainspring.loop.load.schedule import constant, poisson
from mainspring.loop.load.search import FAILED, find_max
from mainspring.spec import System
from mainspring.storage.workspace import Workspace

ROUNDS, WARM_UP, SECONDS, PROMISE = 5, 1.0, 4.0, 0.020
CANDIDATE_RATE, CANDIDATE_SECONDS = 20.0, 15.0


def store_bars(folder: Path) -> list[Bar]:
    """Payments from LMDB and from a server of the Redis protocol at half of the most that they carry; then candidates from LMDB."""
    bodies = payment_bodies(2_000)
    with ExitStack() as running, on_core(SERVER_CORE):
        local, remote = payments_workspace(folder / "lmdb"), payments_workspace(folder / "redis")
        ranker = ranker_workspace(folder / "ranker")
        remote.keep_online_at(f"redis://{running.enter_context(redis_server())}/0")
        paying = [(PAYMENTS, local, f"/v1/{PAYMENTS.name}"), (PAYMENTS, remote, f"/v1/{PAYMENTS.name}")]
        servers = [running.enter_context(_serving(*one, bodies[0])) for one in paying]
        ranking = running.enter_context(_serving(RANKER, ranker, f"/v1/{RANKER.name}/rows", candidate_bodies(1)[0]))
        with on_core(CLIENT_CORE):
            shadow = shadow_bars(local, servers[0], lambda rate, seed: _load(servers[0], bodies, rate, WARM_UP + SECONDS, seed))
            return [*_half("LMDB", servers[0], bodies, 5.0), *_half("Redis", servers[1], bodies, 10.0), *_candidates(ranking), *shadow]


def _half(store: str, server: Served, bodies: Sequence[bytes], most: float) -> list[Bar]:
    print(f"Twelve aggregates from {store}", file=sys.stderr)
    found = find_max(lambda rate: _load(server, bodies, rate, WARM_UP + SECONDS), 500.0, PROMISE)
    what = f"twelve aggregates from {store}"
    highest = bar(f"{what}: most requests within {PROMISE * 1e3:.0f} ms, until {found.because}", "1/s", [found.rate])
    name = f"{what}: p99 at half of it"
    if not found.rate:
        return [highest, unmeasured(name, "ms", f"no rate held: {found.because}", bar=most)]
    loads = [_load(server, bodies, found.rate / 2, WARM_UP + SECONDS, seed) for seed in range(ROUNDS)]
    return [highest, *_quantiles(what + ", half of it", name, loads, most)]


def _candidates(server: Served) -> list[Bar]:
    what = f"{CANDIDATES} candidates a request, {CANDIDATE_RATE:.0f} requests/s"
    print(what, file=sys.stderr)
    bodies = candidate_bodies(100)
    due = constant(CANDIDATE_RATE, WARM_UP + CANDIDATE_SECONDS)
    loads = [drive(Target.of(server.url), _wire(server, bodies), due, Settings(WARM_UP, 64)) for _ in range(ROUNDS)]
    return _quantiles(what, f"{what}: p99", loads, 20.0)


def _quantiles(what: str, name: str, loads: Sequence[Load], most: float) -> list[Bar]:
    """p50 and p99 of what a generator that kept its schedule has measured without failures."""
    spoilt = [one for one in loads if one.failed > FAILED]
    kept = [one for one in loads if one.behind is None]
    if spoilt or len(kept) <= len(loads) // 2:
        why = f"requests failed: {spoilt[0].failures}" if spoilt else str(next(one.behind for one in loads if one.behind is not None))
        return [unmeasured(name, "ms", why, bar=most)]
    middle = bar(f"{what}: p50", "ms", [one.percentile(0.5) * 1e3 for one in kept])
    return [middle, bar(name, "ms", [one.percentile(0.99) * 1e3 for one in kept], bar=most)]


def _load(server: Served, bodies: Sequence[bytes], rate: float, seconds: float, seed: int = 0) -> Load:
    return drive(Target.of(server.url), _wire(server, bodies), poisson(rate, seconds, seed), Settings(WARM_UP, 64))


def _wire(server: Served, bodies: Sequence[bytes]) -> list[bytes]:
    target = Target.of(server.url)
    return [post(f"{target.host}:{target.port}", target.path, body) for body in bodies]


@contextmanager
def _serving(system: System, workspace: Workspace, path: str, body: bytes) -> Iterator[Served]:
    """A server of ours with its stream; it has answered one request by its model, with nothing unknown or unavailable."""
    port = free_port()
    command = [sys.executable, "-m", "mainspring.gateway", "--workspace", str(workspace.path), "--port", str(port)]
    with served(command, port, f"{path}?explain=false", "/readyz", None) as server:
        request = urllib.request.Request(server.url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as response:
            told = json.load(response)
        for answer in told.get("answers", [told]):
            if answer.get("answered_by") != "model" or "unavailable" in answer.get("flags", {}).values():
                raise SystemExit(f"System '{system.name}' does not answer by its model and its store: {answer}")
        yield server
