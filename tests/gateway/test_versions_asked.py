"""Versions by number: loaded once when first asked for, the least recently used gone above the limit, never counted as the system's own."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_service import RuleService

from delivery import build, system
from mainspring.errors import RequestError
from mainspring.gateway import background
from mainspring.gateway.backend import opened
from mainspring.gateway.door.access import new_key
from mainspring.gateway.settings import Access, Limits, Settings
from mainspring.gateway.shelf import Shelf
from mainspring.loop.rollout import look
from mainspring.model_registry.registry import Registry
from mainspring.monitoring.reading import own
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

ADMIN = new_key("keeper", ["*:*"])
BY = {"x-api-key": ADMIN.secret}
COLUMNS = {"drive": ("BYTES", "a"), "sent_at": ("BYTES", "2025-02-10T12:00:00Z"), "depot": ("BYTES", "north"), "km": ("FP64", 12.5)}
ASKED: dict[str, Any] = {
    "inputs": [{"name": name, "shape": [1], "datatype": kind, "data": [value]} for name, (kind, value) in COLUMNS.items()]
}
HOME = "/v2/models/delivery/versions"


@pytest.fixture
def service(tmp_path: Path) -> RuleService:
    return RuleService(tmp_path)


def shelf(limit: int = 1000) -> Shelf:
    return Shelf(limit, lambda *_: None)


def test_many_who_ask_at_once_load_once(service: RuleService) -> None:
    async def ask() -> None:
        one = shelf()
        got = await asyncio.gather(*[one.get(service, 7) for _ in range(20)])
        assert len(set(map(id, got))) == 1
        assert await one.get(service, 7) is got[0]

    asyncio.run(ask())
    assert service.loads == [7]


def test_above_the_limit_the_one_not_used_for_longest_goes(service: RuleService) -> None:
    async def ask() -> None:
        one = shelf(limit=250)
        for number in (1, 2, 1, 3):
            await one.get(service, number)
        assert (one.numbers("eta"), one.size("eta")) == ([1, 3], 200)
        assert (one.drop("eta", 9), one.drop("other"), one.drop("eta")) == (0, 0, 2)
        await one.get(service, 1)

    asyncio.run(ask())
    assert service.loads == [1, 2, 3, 1]


def test_what_cannot_be_loaded_is_told_to_all_and_tried_again(service: RuleService) -> None:
    async def ask() -> None:
        one = shelf()
        for _ in range(2):
            got = await asyncio.gather(*[one.get(service, 404) for _ in range(3)], return_exceptions=True)
            assert [str(error) for error in got] == ["version: System 'eta' has no version 404."] * 3
        with pytest.raises(RequestError, match="needs 100 bytes, of 99"):
            await shelf(99).get(service, 1)

    asyncio.run(ask())


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("asked") / "space", versions=2)


@pytest.fixture(scope="module")
def client(space: Workspace) -> Iterator[httpx.Client]:
    settings = Settings(access=Access(keys=[ADMIN.key], anonymous=["*:answer", "*:describe", "*:metrics"]))
    with opened(space, stream=True) as backend, background(backend, settings=settings) as url, httpx.Client(base_url=url) as client:
        yield client


def outputs(reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    return {tensor["name"]: tensor["data"][0] for tensor in reply.json()["outputs"]}


def test_a_version_that_is_not_live_answers_and_is_no_answer_of_the_system(client: httpx.Client, space: Workspace) -> None:
    live = outputs(client.post("/v2/models/delivery/infer", json=ASKED))
    asked = outputs(client.post(f"{HOME}/1/infer", json={**ASKED, "id": "asked-1"}))
    assert (live["version"], live["variant"]) == ("model:delivery:2", "champion")
    assert (asked["version"], asked["variant"], asked["answered_by"]) == ("model:delivery:1", "asked", "model")
    assert asked["minutes"] == live["minutes"], "the same rows gave the same trees"
    table = PredictionLog(space.predictions).read()[0]
    row = next(row for row in table.to_pylist() if row["request_id"] == "asked-1")
    assert (row["variant"], row["shadow_version"]) == ("asked", "")
    assert "asked-1" not in own(table).column("request_id").to_pylist()
    counted = client.get("/metrics").text
    assert 'route="/v2/models/delivery/versions/{version}/infer",system="delivery",status="200",answered_by="model"' in counted


def test_answers_that_were_asked_for_are_no_pairs_of_a_rollout(space: Workspace, client: httpx.Client) -> None:
    import pyarrow as pa

    assert system.rollout is not None
    client.post(f"{HOME}/1/infer", json=ASKED)
    table = PredictionLog(space.predictions).read()[0]
    chosen = table.filter(pa.compute.equal(table.column("variant"), "asked"))
    labelled = chosen.append_column("label", pa.array([30.0] * len(chosen)))
    registry = Registry(space.registry)
    deployment = dataclasses.replace(registry.deployment("delivery"), challenger="model:delivery:1", stage="shadow")
    registry.close()
    seen = look(system.rollout, deployment, labelled, 0, 1)
    assert (seen.outcome, seen.evidence["pairs"]) == ("insufficient", 0)


def test_the_repository_loads_lists_and_lets_go(client: httpx.Client) -> None:
    def listed() -> list[str | None]:
        return [one.get("version") for one in client.post("/v2/repository/index").json()]

    assert client.post("/v2/repository/models/delivery/load", json={"parameters": {"version": "1"}}).status_code == 401
    unload, load = ("/v2/repository/models/delivery/" + verb for verb in ("unload", "load"))
    assert client.post(unload, headers=BY).status_code == 200
    assert (listed(), client.get(f"{HOME}/1/ready").status_code) == ([None], 503)
    assert client.post(load, json={"parameters": {"version": "1"}}, headers=BY).status_code == 200
    assert (listed(), client.get(f"{HOME}/1/ready").json()["ready"]) == ([None, "1"], True)
    assert client.post(unload, json={"parameters": {"version": "1"}}, headers=BY).status_code == 200
    assert listed() == [None]
    assert client.post(load, json={}, headers=BY).json()["error"]["field"] == "parameters.version"
    assert client.post(load, content=b"[", headers=BY).status_code == 400


@pytest.mark.parametrize("which", ["9", "0", "champion", "-1", "1" * 20])
def test_what_is_no_version_is_404(client: httpx.Client, which: str) -> None:
    reply = client.post(f"{HOME}/{which}/infer", json=ASKED)
    assert (reply.status_code, reply.json()["error"]["field"]) == (404, "version")


def test_a_version_that_cannot_be_loaded_or_is_too_large_says_so(tmp_path: Path) -> None:
    space = build(tmp_path / "space", versions=2)
    with sqlite3.connect(space.registry / "registry.sqlite") as connection:
        connection.execute("DROP TRIGGER versions_no_update")
        row = connection.execute("SELECT artifacts FROM versions WHERE kind = 'model' AND number = 1").fetchone()[0]
        broken = row.replace('"model.txt": "', '"model.txt": "0000')
        connection.execute("UPDATE versions SET artifacts = ? WHERE kind = 'model' AND number = 1", (broken,))
    with opened(space, stream=False) as backend:
        with background(backend) as url:
            reply = httpx.post(f"{url}{HOME}/1/infer", json=ASKED)
            assert (reply.status_code, "cannot be loaded" in reply.text) == (409, True)
        with background(backend, settings=Settings(limits=Limits(memory=1000))) as url:
            reply = httpx.post(f"{url}{HOME}/2/infer", json=ASKED)
            assert (reply.status_code, "Raise limits.memory" in reply.text) == (422, True)
