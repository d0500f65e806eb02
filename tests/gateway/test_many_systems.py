"""Several systems behind one port: each answers, is ready, counts and follows its own log by itself."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from gateway_service import RuleService

from delivery import build, system
from mainspring.cli import main
from mainspring.errors import DeclarationError, ServingError
from mainspring.gateway import App
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.workspace import Workspace

ROW: dict[str, Any] = {"drive": "x", "sent_at": "2025-02-10T12:00:00Z", "depot": "north", "km": 12.5}


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Workspace]:
    os.environ["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
    folder = tmp_path_factory.mktemp("many")
    return build(folder / "one"), build(folder / "two", declared=dataclasses.replace(system, name="courier"))


@pytest.mark.parametrize("workers", [1, 2])
def test_each_system_answers_and_is_counted_by_itself(spaces: tuple[Workspace, Workspace], workers: int) -> None:
    with ServerProcess(*[space.path for space in spaces], workers=workers) as server, httpx.Client(base_url=server.url) as client:
        for name in ("delivery", "courier"):
            answer = client.post(f"/v1/{name}?explain=false", json=ROW).json()
            assert (answer["system"], answer["version"]) == (name, f"model:{name}:1")
            assert client.get(f"/readyz/{name}").json() == {"status": "ready"}
            assert f'mainspring_requests_total{{route="/v1/{name}",system="{name}",status="200"' in client.get("/metrics").text
        assert [one["name"] for one in client.post("/v2/repository/index").json()] == ["delivery", "courier"]
        assert client.get("/readyz/other").status_code == 404


def test_each_follows_its_own_log(spaces: tuple[Workspace, Workspace]) -> None:
    with ServerProcess(*[space.path for space in spaces], workers=2) as server, httpx.Client(base_url=server.url) as client:

        def flags(name: str) -> Any:
            new = {**ROW, "depot": "harbour"}
            return client.post(f"/v1/{name}?explain=false", json=new).status_code

        assert [flags("delivery"), flags("courier")] == [422, 422], "a depot that was never seen"
        client.post("/v1/courier/events/depots", json={"depot": "harbour", "since": "2025-01-01T00:00:00Z", "size": 2.0})
        deadline = time.monotonic() + 5
        while flags("courier") != 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [flags("delivery"), flags("courier")] == [422, 200]


def test_a_system_is_served_once(spaces: tuple[Workspace, Workspace], tmp_path: Any) -> None:
    with pytest.raises(DeclarationError, match="System 'eta' is served twice"):
        App(RuleService(tmp_path), RuleService(tmp_path))
    copy = build(tmp_path / "again")
    with pytest.raises(ServingError, match="System 'delivery' is served twice"):
        ServerProcess(spaces[0].path, copy.path)


def test_as_many_workspaces_as_systems() -> None:
    result = CliRunner().invoke(main, ["serve", "eta", "fraud", "--workspace", "one"])
    assert result.exit_code == 2
    assert "2 systems, 1 workspaces" in result.output
