"""The gateway on Ray Serve, from the configuration that `deploy` writes: it answers as the plain server does."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from delivery import build, system
from mainspring.design.kubernetes import yaml
from mainspring.design.ray_serve import configuration
from mainspring.design.sizing import Sizing
from mainspring.errors import DeclarationError, RegistryError
from mainspring.gateway.adapters.ray_serve import Replica, application
from mainspring.gateway.settings import Settings
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

AT = "2025-02-10T12:00:00Z"
START_SECONDS = 240


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("ray") / "space")


def ask(replica: Replica) -> list[dict[str, Any]]:
    """What a server sends that starts, asks once whether it is ready, and ends."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def life() -> None:
        end = asyncio.Event()
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, Any]:
            if sent:
                await end.wait()
            return {"type": next(messages)}

        async def nothing() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        alive = asyncio.create_task(replica({"type": "lifespan"}, receive, send))
        while not sent and not alive.done():
            await asyncio.sleep(0.01)
        if not alive.done():
            await replica({"type": "http", "method": "GET", "path": "/readyz", "query_string": b"", "headers": []}, nothing, send)
        end.set()
        await alive

    asyncio.run(life())
    return sent


def test_a_replica_lives_as_long_as_its_server(space: Workspace) -> None:
    sent = ask(Replica(space.path, Settings(), "r1"))
    assert [one["type"].split(".")[-1] for one in sent] == ["complete", "start", "body", "complete"]
    assert sent[1]["status"] == 200


def test_a_replica_of_nothing_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        ask(Replica(tmp_path, Settings(), "r1"))


@pytest.mark.parametrize(("arguments", "said"), [({}, "the workspace is missing"), ({"workspce": "x"}, "Did you mean 'workspace'?")])
def test_wrong_arguments_are_named(arguments: dict[str, str], said: str) -> None:
    pytest.importorskip("fastapi", reason="the long suites install Ray Serve")
    pytest.importorskip("ray.serve", reason="the long suites install Ray Serve")
    with pytest.raises(DeclarationError, match=said.replace("?", r"\?")):
        application(arguments)


@pytest.fixture(scope="module")
def ray_url(space: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for name in ("grpc", "fastapi", "ray.serve"):
        pytest.importorskip(name, reason="the long suites install Ray Serve")
    from ray.serve.schema import ServeDeploySchema

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = configuration(system, space.path, Sizing(1, None, 2, 2, 60))
    made["http_options"] |= {"host": "127.0.0.1", "port": port}
    ServeDeploySchema(**made)
    folder = tmp_path_factory.mktemp("serve")
    (folder / "serve.yaml").write_text(yaml(made))
    paths = os.pathsep.join([part for part in sys.path if part])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "ray.serve.scripts", "run", "--address", "local", str(folder / "serve.yaml")]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, process_group=0)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + START_SECONDS
        while not ready(url):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < until, (folder / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.long
def test_it_answers_as_the_plain_server_does(space: Workspace, ray_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([part for part in sys.path if part]))
    depots = ["north", "south", "west"]
    rows = [{"drive": f"d{one}", "sent_at": AT, "depot": depots[one % 3], "km": 1.0 + one / 3} for one in range(100)]

    def answers(url: str, name: str) -> list[Any]:
        with httpx.Client(base_url=url, trust_env=False) as client:
            sent = [client.post("/v1/delivery", json=row, headers={"x-request-id": f"{name}{n}"}) for n, row in enumerate(rows)]
        assert {one.status_code for one in sent} == {200}
        assert [set(one.headers.get_list("x-request-id")) for one in sent] == [{f"{name}{n}"} for n in range(100)]
        return [{key: value for key, value in one.json().items() if key != "request_id"} for one in sent]

    with ServerProcess(space.path, name="plain") as server:
        plain = answers(server.url, "plain")
        assert answers(ray_url, "ray") == plain
    assert httpx.post(f"{ray_url}/v1/delivery", json={**rows[0], "km": -1}, trust_env=False).json()["error"]["field"] == "km"
    nameless = httpx.post(f"{ray_url}/v1/delivery", json=rows[0], trust_env=False)
    assert set(nameless.headers.get_list("x-request-id")) == {nameless.json()["request_id"]}
    logged = PredictionLog(space.predictions).read()[0].column("request_id").to_pylist()
    assert {f"ray{n}" for n in range(100)} <= set(logged)
