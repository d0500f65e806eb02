"""Versions promoted and rolled back under load, broken and wrongly signed ones among them, over two workers."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import mainspring as ms
from chaos.conftest import GOOD
from chaos.load import load, post
from delivery import NOW, build, system
from mainspring.gateway.backend import opened
from mainspring.ingestion import Contract
from mainspring.loop.retrain import Retrainer
from mainspring.loop.server_process import ServerProcess
from mainspring.model_registry.registry import PUBLIC_KEY, SIGNING_KEY, Registry
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder

ROWS: list[dict[str, Any]] = [{**GOOD, "drive": f"r{number}", "km": 1.5 + number} for number in range(40)]
REQUESTS = [post("/v1/delivery?explain=false", json.dumps(row).encode()) for row in ROWS]


@dataclass
class Signed:
    """A registry whose versions answer each in their own way; ``right`` signs as the server wants it, ``wrong`` does not."""

    space: Workspace
    expected: dict[str, list[float]]
    bad: list[str]


def key(file: Path) -> Ed25519PrivateKey:
    private = Ed25519PrivateKey.generate()
    raw = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    file.with_suffix(".pem").write_bytes(raw)
    file.with_suffix(".pub").write_bytes(public)
    return private


def train(space: Workspace, trees: int, private: Ed25519PrivateKey) -> str:
    """Another version, which answers otherwise than those with other numbers of trees."""
    registry = Registry(space.registry, sign=private.sign)
    other = replace(system, model=ms.LightGBM(trees=trees, leaves=8, learning_rate=0.2, interval=(0.1, 0.9), holdout="7d"))
    retrainer = Retrainer(other, registry, DatasetBuilder(other, Tables(space.tables)), "test", threads=1)
    version, _ = retrainer.train(retrainer.dataset(NOW), NOW)
    registry.close()
    return version.id


def spoil(space: Workspace, version: str) -> None:
    registry = Registry(space.registry)
    digest = registry.version(version).artifacts["model.txt"]
    registry.close()
    file = next(one for one in (space.registry / "blobs").rglob("*") if one.is_file() and digest in str(one).replace("/", ""))
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    folder = tmp_path_factory.mktemp("releases")
    right, wrong = key(folder / "right"), key(folder / "wrong")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([part for part in sys.path if part]))
        patch.setenv(PUBLIC_KEY, str(folder / "right.pub"))
        patch.delenv(SIGNING_KEY, raising=False)
        space = build(folder / "space", sign=right.sign)
        good = ["model:delivery:1", *(train(space, trees, right) for trees in (50, 40, 30))]
        bad = [train(space, 20, right), train(space, 10, wrong)]
        contract = Contract(system.request)
        expected = {}
        for version in good:
            move(space, version)
            with opened(space, stream=True) as backend:
                answers = [backend.answer(contract.check(row), request_id="r", explain=False) for row in ROWS]
                assert {(one.version, one.answered_by) for one in answers} == {(version, "model")}
                expected[version] = [one.prediction for one in answers]
        assert len({answers[0] for answers in expected.values()}) == len(good)
        spoil(space, bad[0])
        move(space, good[0])
        yield Signed(space, expected, bad)


def decide(space: Workspace, action: str, version: str = "", **evidence: str) -> None:
    registry = Registry(space.registry)
    why = {} if action == "roll_back" else {"despite": "test"}
    registry.decide("delivery", action, version, at=NOW, by="test", reason="test", evidence={**why, **evidence})
    registry.close()


def move(space: Workspace, version: str) -> None:
    registry = Registry(space.registry)
    champion = registry.deployment("delivery").champion
    registry.close()
    if champion != version:
        decide(space, "shadow", version)
        decide(space, "promote", version)


@contextmanager
def watched(url: str) -> Iterator[Counter[int]]:
    """What /readyz says, again and again."""
    said, stop = Counter[int](), threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=5) as reply:
                    said[reply.status] += 1
            except urllib.error.HTTPError as error:
                said[error.code] += 1

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join()


def test_ten_promotes_and_rollbacks_fail_nothing_and_answer_by_one_version_each(signed: Signed) -> None:
    space, expected = signed.space, signed.expected
    one, two, three, four = expected
    moves: list[tuple[str, str, str]] = [
        ("promote", two, two),
        ("promote", three, three),
        ("roll_back", three, two),
        ("promote", signed.bad[0], two),
        ("roll_back", signed.bad[0], two),
        ("promote", signed.bad[1], two),
        ("roll_back", signed.bad[1], two),
        ("promote", four, four),
        ("roll_back to", one, one),
        ("promote", three, three),
    ]
    worst: dict[str, float] = {}
    with ServerProcess(space.path, workers=2) as server, watched(server.url) as ready:
        with load(server.port, REQUESTS, 32, pause=0.01, keep=True) as tally:
            time.sleep(1.5)
            calm = [given.seconds for given in tally.kept]
            for number, (action, version, then) in enumerate(moves):
                begun = time.monotonic()
                if action == "promote":
                    move(space, version)
                elif action == "roll_back":
                    decide(space, action, version)
                else:
                    decide(space, "roll_back", to=version)
                time.sleep(1.2)
                since = [given for given in tally.kept if given.at > begun]
                worst[f"{number} {action} {version}"] = max(given.seconds for given in since)
                settled = [json.loads(given.body) for given in since if given.at - given.seconds > begun + 0.9]
                assert settled
                assert {answer["version"] for answer in settled} == {then}, (action, version)
                if version in signed.bad and action == "promote":
                    assert {answer["answered_by"] for answer in settled} == {"previous"}
                    assert all(f"{version} could not answer" in answer["because"] for answer in settled)
        log = server.log.read_text()
    calm.sort()
    print(f"calm p50 {calm[len(calm) // 2]:.4f} p99 {calm[-len(calm) // 100]:.4f} longest {calm[-1]:.4f}; {tally.answered} answers")
    for name, seconds in worst.items():
        print(f"{name}: longest {seconds:.4f}")
    assert set(tally.statuses) == {200}
    assert (tally.lost, tally.hung, tally.refused) == ([], 0, 0)
    for given in tally.kept:
        answer = json.loads(given.body)
        assert answer["minutes"] == expected[answer["version"]][given.number]
    assert set(ready) == {200}
    assert f"{signed.bad[0]} cannot be loaded" in log
    assert f"{signed.bad[1]}': the signature does not fit" in log
