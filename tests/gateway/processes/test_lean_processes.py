"""What a process that only answers has loaded: no Arrow before it takes or folds an event, and nothing of what trains."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from delivery import build, hour, system
from mainspring.feature_store.online import OnlineStore
from mainspring.loop.server_process import ServerProcess
from mainspring.spec import Policy, Requirements
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.stores import open_key_value, open_log
from mainspring.storage.workspace import Workspace

ROW: dict[str, Any] = {"drive": "x", "sent_at": "2025-02-10T12:00:00Z", "depot": "north", "km": 12.5}
HARBOUR = {"depot": "harbour", "since": "2025-01-01T00:00:00Z", "size": 2.0}
NEEDLESS = re.compile(r"/(pyarrow|duckdb|pandas|scipy|sklearn|numpy/random)/")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has mapped")


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Its log holds events, all of which are in the online store; no function of the system is in a module of tests."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([part for part in sys.path if part]))
    features = [one for one in system.features if one is not hour]
    bare = {"requirements": Requirements(explain="reasons"), "baselines": [], "policy": Policy(feature_deadline="500ms")}
    declared = dataclasses.replace(system, features=features, **bare)
    space = build(tmp_path / "space", declared=declared)
    with closing(open_log(space.events_url)) as log, closing(open_key_value(space.online_url)) as store:
        OnlineStore(declared, store).apply(log)
    return space


def tree(pid: int) -> list[int]:
    children = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return [pid, *(one for child in children for one in tree(int(child)))]


def loaded(server: ServerProcess) -> list[set[str]]:
    """Of each process the needless libraries whose code it has mapped."""
    return [set(NEEDLESS.findall(Path(f"/proc/{pid}/maps").read_text())) for pid in tree(server.pid)]


def answered(client: httpx.Client, depot: str) -> int:
    return client.post("/v1/delivery?explain=false", json={**ROW, "depot": depot}).status_code


def learn_of_a_depot(client: httpx.Client) -> None:
    assert answered(client, "harbour") == 422, "a depot that was never seen"
    assert client.post("/v1/delivery/events/depots", json=HARBOUR).json()["accepted"] == 1
    deadline = time.monotonic() + 10
    while answered(client, "harbour") != 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answered(client, "harbour") == 200


def test_a_process_with_its_stream_loads_arrow_with_the_first_event(space: Workspace) -> None:
    for _ in range(2):
        with ServerProcess(space.path) as server, httpx.Client(base_url=server.url) as client:
            answers = [client.post("/v1/delivery", json=ROW).json()["answered_by"] for _ in range(20)]
            assert answers == ["model"] * 20
            assert client.get("/metrics").status_code == client.get("/openapi.json").status_code == 200
            assert loaded(server) == [set()]
        assert PredictionLog(space.predictions).compact() == 1
    with ServerProcess(space.path) as server, httpx.Client(base_url=server.url) as client:
        learn_of_a_depot(client)
        assert loaded(server)[0] & {"pyarrow", "duckdb"} == {"pyarrow"}


def test_of_several_processes_those_load_arrow_that_take_or_fold_events(space: Workspace) -> None:
    with ServerProcess(space.path, workers=2) as server, httpx.Client(base_url=server.url) as client:
        assert [answered(client, "north") for _ in range(20)] == [200] * 20
        assert loaded(server) == [set()] * 4, "a supervisor, two workers, and what folds events"
        learn_of_a_depot(client)
        assert sum("pyarrow" in one for one in loaded(server)) == 2


def test_the_functions_of_a_system_of_ours_come_without_arrow() -> None:
    code = "import sys, mainspring.systems.eta.features; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
