"""The split of traffic over two workers: as large as decided, the same for the same key, in every worker and after a restart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.conftest import GOOD
from chaos.load import Given, Tally, load, post
from chaos.test_processes import wait_until
from delivery import NOW, build
from mainspring.gateway.split import assign
from mainspring.loop.server_process import ServerProcess
from mainspring.model_registry.registry import Registry
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

SHARE, KEYS, CHALLENGER = 0.3, 20_000, "model:delivery:1"
CHUNK = 100


@pytest.fixture
def split(space: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    own = build(tmp_path / "space", versions=2)
    registry = Registry(own.registry)
    for action, evidence in (("shadow", {}), ("canary", {"share": SHARE})):
        registry.decide("delivery", action, CHALLENGER, at=NOW + 9, by="test", reason="test", evidence=evidence)
    registry.close()
    yield own
    shutil.rmtree(own.path)


def answered(tally: Tally) -> list[Given]:
    return [given for given in tally.kept if given.status == 200]


def variants(space: Workspace, keys: range) -> dict[str, str]:
    """The variant that answered each key, twice over several connections; a key that got two fails."""
    bodies = [
        json.dumps({"rows": [{"drive": f"k{key}"} for key in keys[at : at + CHUNK]], "shared": {**GOOD, "drive": "-"}}).encode()
        for at in range(0, len(keys), CHUNK)
    ]
    requests = [post("/v1/delivery/rows", body) for body in bodies]
    with ServerProcess(space.path, workers=2) as server, load(server.port, requests, 4, pause=0.01, keep=True) as tally:
        wait_until(lambda: len(answered(tally)) > 2 * len(requests) and len({one.number for one in answered(tally)}) == len(requests), 120)
    assert set(tally.statuses) <= {200, 503}, "a crowded server may refuse, and is asked again"
    found: dict[str, set[str]] = {f"k{key}": set() for key in keys}
    for given in answered(tally):
        own = keys[given.number * CHUNK : (given.number + 1) * CHUNK]
        for key, answer in zip(own, json.loads(given.body)["answers"], strict=True):
            found[f"k{key}"].add(answer["variant"])
    assert all(len(one) == 1 for one in found.values())
    return {key: one.pop() for key, one in found.items()}


def test_the_split_is_within_a_hundredth_and_sticky_over_workers_and_restarts(split: Workspace) -> None:
    first = variants(split, range(KEYS))
    share = sum(variant == "challenger" for variant in first.values()) / KEYS
    print(f"{share:.4f} of {KEYS} keys")
    assert abs(share - SHARE) <= 0.01
    assert all((variant == "challenger") is assign(key, SHARE, CHALLENGER) for key, variant in first.items())
    again = variants(split, range(2_000))
    assert again == {key: first[key] for key in again}
    _, cursor = PredictionLog(split.predictions).read()
    assert len(cursor) == 2, "both workers answered"
