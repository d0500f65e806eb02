"""The model of the serving benchmark, 200 trees of 31 leaves over 30 features, as a file and as a system's promoted version."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

import mainspring as ms
from mainspring.clock import SystemClock
from mainspring.model_registry.registry import open_registry
from mainspring.models.adapters.lightgbm import MODEL, Booster, LightGBMLearner
from mainspring.models.encoding import Encoder
from mainspring.models.protocol import Floats, Rows
from mainspring.models.tabular import TabularModel
from mainspring.storage.workspace import Workspace

WIDTH, ROWS, SETTINGS = 30, 20_000, {"objective": "regression", "trees": 200, "leaves": 31}
NAMES = [f"f{number}" for number in range(WIDTH)]

asked = ms.Source("asked", {"id": str, "at": datetime, **dict.fromkeys(NAMES, float)}, event_time="at", event_id="id")
outcomes = ms.Source("outcomes", {"id": str, "at": datetime, "score": float}, event_time="at", event_id="id")
SYSTEM = ms.System(
    "bench",
    "What is the score?",
    asked,
    [asked[name] for name in NAMES],
    ms.Label(outcomes, "score", on="id", matures_after="1d"),
    ms.LightGBM(objective="regression", trees=200, leaves=31),
)


def fitted() -> Booster:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, WIDTH))
    y = x[:, 0] + x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) + 0.1 * rng.normal(size=ROWS)
    return LightGBMLearner(**SETTINGS).fit(Rows(x, y), names=NAMES, threads=1)  # type: ignore[arg-type]


def save(booster: Booster, folder: Path) -> Path:
    """Make a workspace whose champion it is; the path of the model's text, for peers."""
    folder.mkdir(exist_ok=True)
    text, space = folder / MODEL, Workspace(folder)
    text.write_bytes(booster.to_artifacts()[MODEL])
    model = TabularModel(Encoder(tuple(NAMES), {}, {}), "lightgbm", SETTINGS, booster)
    artifacts = {**model.to_artifacts(), "baselines.json": b"{}", "system.json": SYSTEM.to_json().encode()}
    registry, now = open_registry(space.registry_url), SystemClock().now()
    registry.register("system", SYSTEM.name, {}, {"system.json": artifacts["system.json"]}, at=now)
    version = registry.register("model", SYSTEM.name, {"features": SYSTEM.feature_hashes}, artifacts, at=now)
    registry.decide(SYSTEM.name, "promote", version.id, at=now, by="benchmark", reason="first version", evidence={})
    registry.close()
    return text


def requests(count: int) -> tuple[Floats, list[bytes]]:
    """Rows of shape ``(count, 30)`` and their bodies."""
    x = np.random.default_rng(1).normal(size=(count, WIDTH))
    at = "2025-03-01T12:00:00Z"
    bodies = [msgspec.json.encode({"id": f"r{i}", "at": at, **dict(zip(NAMES, row, strict=True))}) for i, row in enumerate(x.tolist())]
    assert json.loads(bodies[0])["f0"] == x[0, 0]
    return x, bodies
