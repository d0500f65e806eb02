"""A device whose server goes away and comes back: answers all along, none lost, none there twice."""

from __future__ import annotations

import os
import random
import signal
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
from mainspring.edge.answer_log import AnswerLog
from mainspring.edge.client import EdgeClient, Narrower, Outside
from mainspring.edge.exporting import embed, write
from mainspring.errors import DeclarationError, ExportError, RequestError, ServingError, StorageError
from mainspring.loop.server_process import ServerProcess
from mainspring.model_registry.registry import Registry
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace

GOOD: dict[str, Any] = {"drive": "x", "sent_at": "2025-02-10T12:00:00Z", "depot": "north", "km": 12.5}
ALWAYS, NEVER = Narrower(1e9), Narrower(0.0)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    os.environ["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
    return build(tmp_path_factory.mktemp("client") / "space")


@pytest.fixture(scope="module")
def file(space: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    registry = Registry(space.registry)
    done = embed(system, registry, Tables(space.tables), registry.resolve("delivery", "champion"), "python")
    registry.close()
    folder = tmp_path_factory.mktemp("device")
    write(folder, done.files)
    return folder / done.entry


@pytest.fixture
def nowhere() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def on_server(space: Workspace) -> list[dict[str, Any]]:
    return [row for row in PredictionLog(space.predictions).read()[0].to_pylist() if row["variant"] == "edge"]


def test_a_server_that_goes_away_and_comes_back(space: Workspace, file: Path, tmp_path: Path, nowhere: str) -> None:
    ids = [f"a{i}" for i in range(60)]
    asked = [{**GOOD, "drive": id, "km": float(i % 40)} for i, id in enumerate(ids)]
    before = len(on_server(space))

    def client(url: str) -> EdgeClient:
        return EdgeClient(file, url, confident=NEVER, log=tmp_path / "answers", deadline="5s")

    with ServerProcess(space.path) as server:
        device = client(server.url)
        first = [device.answer(one, request_id=id) for one, id in zip(asked[:20], ids[:20], strict=True)]
    away = [device.answer(one, request_id=id) for one, id in zip(asked[20:50], ids[20:50], strict=True)]
    with pytest.raises(ServingError, match="did not answer within"):
        device.sync()
    device.close()
    assert {one.answered_by for one in first} == {"server"}
    assert {one.answered_by for one in away} == {"edge"}
    assert "did not answer within 5 s" in (away[0].because or "")
    assert "left alone for a while" in (away[1].because or "")
    with ServerProcess(space.path) as server:
        device = client(server.url)
        back = [device.answer(one, request_id=id) for one, id in zip(asked[50:], ids[50:], strict=True)]
        done = device.sync()
        (tmp_path / "answers.taken").unlink()
        device.close()
        again = client(server.url)
        twice = again.sync()
        assert not again.waiting
        again.close()
    with ServerProcess(space.path) as server:
        (tmp_path / "answers.taken").unlink()
        restarted = client(server.url)
        assert restarted.sync().known == 30
        restarted.close()
    assert {one.answered_by for one in back} == {"server"}
    assert (done.taken, done.known, done.rejected) == (30, 0, ())
    assert (twice.taken, twice.known) == (0, 30)
    rows = on_server(space)[before:]
    assert [row["request_id"] for row in rows] == ids[20:50]
    assert [row["score"] for row in rows] == [one.answer["minutes"] for one in away]
    assert rows[0]["feature.km"] == 20.0
    assert rows[0]["status.km"] == 0
    assert rows[0]["status.at_depot__count_1d"] == 5
    assert rows[0]["feature.hour"] == 12.0


def test_who_is_confident_never_asks(file: Path, tmp_path: Path, nowhere: str) -> None:
    device = EdgeClient(file, nowhere, confident=ALWAYS, log=tmp_path / "answers")
    answer = device.answer(GOOD)
    assert (answer.answered_by, answer.because) == ("edge", None)
    assert device.waiting
    with pytest.raises(RequestError, match="km: must be a number"):
        device.answer({**GOOD, "km": "far"})
    device.close()
    assert Outside(0.3, 0.7)(0.2, None)
    assert not Outside(0.3, 0.7)(0.5, None)
    assert not Narrower(2.0)(0.5, None)


def test_a_dead_server_costs_nothing_once_it_is_known_to_be_dead(file: Path, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        device = EdgeClient(file, url, confident=NEVER, log=tmp_path / "answers", deadline="80ms", rng=random.Random(0))
        begin = time.monotonic()
        assert "within 0.08 s" in (device.answer(GOOD).because or "")
        slow = time.monotonic() - begin
        assert 0.08 <= slow < 2.0
        assert all("left alone" in (device.answer(GOOD).because or "") for _ in range(5))
        device.close()


def test_what_is_wrong_is_said_at_once(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="no address of a server"):
        EdgeClient(file, "localhost:8000", confident=ALWAYS, log=tmp_path / "answers")
    (tmp_path / "other.py").write_text("x = 1")
    for wrong in (tmp_path / "none.py", tmp_path / "other.py"):
        with pytest.raises(ExportError, match="mainspring export SYSTEM --target python"):
            EdgeClient(wrong, "http://localhost:8000", confident=ALWAYS, log=tmp_path / "answers")
    with pytest.raises(StorageError, match="cannot be opened"):
        AnswerLog(tmp_path / "other.py" / "answers")


def test_the_log_survives_a_kill_and_half_a_record(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mainspring.edge.answer_log import AnswerLog\n"
        "log = AnswerLog(Path(sys.argv[1]))\nfor i in range(10**9):\n    log.append({'i': i}); print(i, flush=True)"
    )
    path = tmp_path / "answers"
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    said += [int(line) for line in writer.stdout.read().splitlines()]
    writer.wait()
    writer.stdout.close()
    with path.open("ab") as file:
        file.write(b"\x20\x00\x00\x00\x01")
    log = AnswerLog(path)
    records, position = log.next(10**9)
    assert [one["i"] for one in records][: len(said)] == said
    log.append({"i": "after"})
    log.take(position)
    assert log.next(10)[0] == [{"i": "after"}]
    log.close()
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    path.with_name("answers.taken").unlink()
    damaged = AnswerLog(path)
    with pytest.raises(StorageError, match="byte 0: a record is damaged"):
        damaged.next(10)
    damaged.close()


def test_answers_that_are_none_are_refused_and_those_that_break_the_contract_told(space: Workspace) -> None:
    whole = {"request_id": "w1", "answered_at": 1, "request": GOOD, "features": {}, "version": "model:delivery:1", "answered_by": "model"}
    whole |= {"score": 1.0, "low": None, "high": None, "latency_us": 1.0}
    with ServerProcess(space.path) as server, httpx.Client(base_url=server.url) as http:
        assert http.post("/v1/delivery/predictions", json={}).status_code == 400
        assert http.post("/v1/delivery/predictions", json=[{**whole, "score": "much"}]).json()["error"]["field"] == "[0]"
        told = http.post("/v1/delivery/predictions", json=[{**whole, "request": {**GOOD, "km": -1}}, {**whole, "request_id": "w2"}]).json()
    assert told == {"taken": 1, "known": 0, "rejected": [{"request_id": "w1", "reason": "km: must be at least 0"}]}
