"""A server whose workers hold no large table: answers, a shard that dies, a promote under load, a renewal, and the end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delivery import NOW, build, depots
from delivery import system as with_places
from mainspring.loop.server_process import ServerProcess
from mainspring.model_registry.registry import Registry
from mainspring.models.adapters.nets.bodies import Mlp
from mainspring.models.adapters.nets.columns import LearnedColumns, NumberColumn
from mainspring.models.adapters.nets.net import NetPredictor
from mainspring.models.adapters.nets.net import build as build_net
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.encoding import Encoder
from mainspring.models.tabular import TabularModel
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

system = replace(with_places, features=[*with_places.features[:-1], depots.per("depot", name="place").last("size")])
"""Depots need not be known."""
DEPOTS = [f"depot {number}" for number in range(70_000)]
ROWS = [{"drive": f"x{number}", "sent_at": "2025-02-10T12:00:00Z", "depot": depot, "km": 12.5} for number, depot in enumerate(DEPOTS[:40])]
SETTINGS = {
    "shape": "mlp", "objective": "regression", "hidden": [16], "crosses": [], "level": 0.5, "classes": 1, "dropout": 0.0,
    "epochs": 1, "batch": 64, "learning_rate": 0.01, "weight_decay": 0.0, "patience": 1,
}  # fmt: skip


def large_model(seed: int) -> TabularModel:
    names = tuple(feature.name for feature in system.features)
    numbers = {name: NumberColumn((0.0, 1.0), (0.0, 1.0), gaps=True) for name in names if name != "depot"}
    columns = LearnedColumns(names, numbers, {"depot": len(DEPOTS) + 1})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_net(Mlp((16,)), columns, 16, (Task("regression"),))
        for one in net.parameters():
            torch.nn.init.normal_(one, std=0.3)
    encoder = Encoder(names, {"depot": {depot: code for code, depot in enumerate(DEPOTS)}}, {})
    predictor = NetPredictor(columns, Mlp((16,)), 16, (Task("regression", centre=40.0),), net.eval())
    return TabularModel(encoder, "net", SETTINGS, predictor)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Versions 2 and 3 have large tables; 2 is promoted."""
    os.environ["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
    space = build(tmp_path_factory.mktemp("sharded") / "space", declared=system)
    registry = Registry(space.registry)
    lines = registry.artifact(registry.version("model:delivery:1"), "baselines.json")
    manifest = {"features": dict(system.feature_hashes), "bytes": 1}
    for seed in (2, 3):
        files = {**large_model(seed).to_artifacts(), "baselines.json": lines}
        registry.register("model", "delivery", manifest, files, at=NOW)
    promote(registry, "model:delivery:2")
    registry.close()
    return space


def promote(registry: Registry, version: str) -> None:
    for action in ("shadow", "promote"):
        registry.decide("delivery", action, version, at=NOW, by="test", reason="test")


@pytest.fixture(scope="module")
def server(space: Workspace) -> Iterator[ServerProcess]:
    file = space.path / "gateway.toml"
    file.write_text('[shards]\ncount = 2\ndeadline = "1s"\n')
    with ServerProcess(space.path, workers=2, settings=file) as server:
        yield server


def ask(server: ServerProcess, body: Any = None) -> list[dict[str, Any]]:
    data = json.dumps({"rows": ROWS} if body is None else body).encode()
    request = urllib.request.Request(f"{server.url}/v1/delivery/rows?explain=false", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["answers"]
    return found


def workers_of(server: ServerProcess) -> set[int]:
    return {pid for pid, line in processes_of(server).items() if "--listener" in line}


def shards_of(server: ServerProcess) -> dict[int, int]:
    """Numbers of the shards with their processes."""
    own = "mainspring.gateway.processes.shard"
    return {int(line[line.index("--shard") + 1]): pid for pid, line in processes_of(server).items() if own in line}


def processes_of(server: ServerProcess) -> dict[int, list[str]]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in children}


def right(seed: int, answers: list[dict[str, Any]], space: Workspace) -> list[float]:
    """What the whole model says to the features that the server had."""
    log, _ = PredictionLog(space.predictions).read()
    names = [feature.name for feature in system.features]
    by_id = {row["request_id"]: row for row in log.to_pylist()}
    rows = [tuple(by_id[one["request_id"]][f"feature.{name}"] for name in names) for one in answers]
    return [max(1.0, float(score[0])) for score in large_model(seed).predict_rows(rows)]  # type: ignore[index]


def test_answers_are_those_of_the_whole_model(server: ServerProcess, space: Workspace) -> None:
    answers = ask(server)
    assert {(one["answered_by"], one["version"]) for one in answers} == {("model", "model:delivery:2")}
    assert sorted(shards_of(server)) == [0, 1]
    assert len({one["minutes"] for one in answers}) > 30
    assert [one["minutes"] for one in answers] == right(2, answers, space)


def test_while_a_shard_is_away_the_fallback_answers_and_then_the_model_again(server: ServerProcess) -> None:
    os.kill(shards_of(server)[1], signal.SIGKILL)
    deadline, seen = time.monotonic() + 60, []
    while time.monotonic() < deadline:
        by = {one["answered_by"] for one in ask(server)}
        assert by <= {"model", "previous", "line"}
        seen.append(by)
        if len(seen) > 20 and all(one == {"model"} for one in seen[-20:]):
            break
        time.sleep(0.02)
    else:
        raise AssertionError(seen[-5:])
    assert any(one != {"model"} for one in seen)


def test_a_promote_under_load_gives_every_answer_by_one_version(server: ServerProcess, space: Workspace) -> None:
    stop, answers, problems = threading.Event(), [], []

    def load() -> None:
        while not stop.is_set():
            try:
                answers.extend(ask(server))
            except Exception as error:
                problems.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    registry = Registry(space.registry)
    try:
        time.sleep(0.3)
        promote(registry, "model:delivery:3")
        deadline = time.monotonic() + 30
        while sum(one["version"] == "model:delivery:3" for one in answers[-400:]) < 400 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join()
        registry.close()
    assert not problems
    assert {one["answered_by"] for one in answers} == {"model"}
    for number in (2, 3):
        own = [one for one in answers if one["version"] == f"model:delivery:{number}"][-400:]
        assert own
        assert [one["minutes"] for one in own] == right(number, own, space)


def test_workers_are_renewed_and_shards_stay(server: ServerProcess) -> None:
    before, workers = shards_of(server), workers_of(server)
    assert len(workers) == 2
    os.kill(server.pid, signal.SIGHUP)
    deadline = time.monotonic() + 20
    while workers & workers_of(server):
        assert time.monotonic() < deadline
        assert {one["answered_by"] for one in ask(server)} == {"model"}
        time.sleep(0.02)
    assert shards_of(server) == before
