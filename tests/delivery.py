"""A small system for tests: minutes of a delivery, from simulated drives. `build` makes a workspace with a promoted version."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

import mainspring as ms
from mainspring.clock import DAY, MINUTE, parse_instant
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry.registry import Registry
from mainspring.model_registry.signatures import Sign
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder

START = parse_instant("2025-01-01")
NOW = START + 40 * DAY


@ms.feature
def hour(sent_at):  # type: ignore[no-untyped-def]
    return sent_at / 3_600_000_000 % 24


_SCHEMA = {"drive": str, "sent_at": datetime, "depot": str, "km": float | None}
drives = ms.Source(
    "drives", _SCHEMA, event_time="sent_at", event_id="drive", ranges={"sent_at": ("2020-01-01", "2030-01-01"), "km": (0, 500)}
)
done = ms.Source(
    "done", {**_SCHEMA, "done_at": datetime, "minutes": float}, event_time="done_at", event_id="drive", ranges={"minutes": (0, 1440)}
)
depots = ms.Source("depots", {"depot": str, "since": datetime, "size": float}, event_time="since", event_id="depot", kind="table")

at_depot = done.per("depot", name="at_depot")
system = ms.System(
    "delivery",
    question="How many minutes will the delivery take?",
    requirements=ms.Requirements(explain="reasons", quality=[ms.at_most("mae", 1.0, of="line")]),
    request=drives,
    features=[
        drives["depot"],
        drives["km"],
        hour,
        at_depot.mean("minutes", "7d", default=30.0),
        at_depot.count("1d"),
        depots.per("depot", name="place", required=True).last("size"),
    ],
    label=ms.Label(done, "minutes", on="drive", matures_after="1d"),
    model=ms.LightGBM(trees=60, leaves=8, learning_rate=0.2, interval=(0.1, 0.9), holdout="7d"),
    baselines=[ms.LinearRule("line", on="km")],
    policy=ms.Policy(fallback=["previous", "line"], feature_deadline="500ms", floor=1.0),
    rollout=ms.Rollout(unit="drive", margin=0.05),
)


def tables(rows: int = 4_000) -> dict[str, pa.Table]:
    """Drives over 40 days from three depots, 2 minutes a kilometre by day and 3 in the evening, with noise."""
    rng = np.random.default_rng(0)
    sent = np.sort(START + rng.integers(0, 40 * DAY, rows))
    depot = rng.choice(["north", "south", "west"], rows)
    km = rng.uniform(1, 40, rows)
    evening = sent / 3_600_000_000 % 24 > 17
    minutes = 5 + km * np.where(evening, 3.0, 2.0) + rng.normal(0, 2, rows).clip(-4, 4)
    columns = {"drive": [f"d{i}" for i in range(rows)], "sent_at": sent, "depot": depot.tolist(), "km": km}
    arrived = {**columns, "done_at": sent + (minutes * MINUTE).astype(np.int64), "minutes": minutes}
    places = {"depot": ["north", "south", "west"], "since": [START - DAY] * 3, "size": [1.0, 2.0, 3.0]}
    return {"drives": pa.table(columns), "done": pa.table(arrived), "depots": pa.table(places)}


def build(path: Path, versions: int = 1, declared: ms.System = system, sign: Sign | None = None) -> Workspace:
    """A workspace at ``path``: events logged, ``versions`` trained one after another and promoted; with ``sign`` all is signed."""
    space = Workspace(path)
    path.mkdir(parents=True, exist_ok=True)
    log, registry = EventLog(space.events), Registry(space.registry, sign=sign)
    ingestor = Ingestor(log, {one.name: one for one in (declared.request, *declared.sources)}, Quarantine(space.quarantine))
    for name, table in tables().items():
        ingestor.ingest(name, table, at=NOW)
    offline = Tables(space.tables)
    offline.catch_up(log)
    registry.register("system", declared.name, {"hash": declared.hash}, {"system.json": declared.to_json().encode()}, at=NOW)
    retrainer = Retrainer(declared, registry, DatasetBuilder(declared, offline), "test", threads=1)
    dataset = retrainer.dataset(NOW)
    for number in range(versions):
        version, gate = retrainer.train(dataset, NOW + number)
        assert gate.passed, gate.reason
        if number:
            registry.decide(declared.name, "shadow", version.id, at=NOW + number, by="test", reason="test")
        registry.decide(declared.name, "promote", version.id, at=NOW + number, by="test", reason="test")
    registry.close()
    return space
