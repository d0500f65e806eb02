"""A small system of two classes for tests of evaluation: whether a payment is charged back. `build` makes a workspace with two versions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

import mainspring as ms
from mainspring.clock import DAY, HOUR, parse_instant
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry.registry import Registry
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder
from mainspring.training.tracking.tracker import Tracker

START = parse_instant("2025-01-01")
NOW = START + 60 * DAY
ROWS = 12_000

payments = ms.Source(
    "payments",
    {"payment": str, "paid_at": datetime, "card": str, "country": str, "amount": float},
    event_time="paid_at",
    event_id="payment",
)
verdicts = ms.Source("verdicts", {"payment": str, "decided_at": datetime, "bad": bool}, event_time="decided_at", event_id="payment")
system = ms.System(
    "chargebacks",
    question="Will this payment be charged back?",
    owner="payments team",
    requirements=ms.Requirements(
        quality=[
            ms.at_least("recall", 0.3, at_alert_rate=0.05),
            ms.at_most("brier", 1.0, of="line"),
            ms.at_least("roc_auc", 1.05, of="line"),
            ms.at_least("average_precision", 0.99),
        ],
        costs=ms.Costs(tp=5, fp=5, fn=60),
    ),
    request=payments,
    features=[payments["amount"], payments["country"], payments.per("card").count("1d"), payments.per("card").mean("amount", "7d")],
    label=ms.Label(verdicts, "bad", on="payment", matures_after="2d"),
    model=ms.LightGBM(objective="binary", trees=40, leaves=8, holdout="20d"),
    baselines=[ms.LinearRule("line", on="amount")],
    monitors=[ms.Monitor("error", by=["country"])],
    rollout=ms.Rollout(unit="card", margin=0.05),
)
PROMISED = (*system.requirements.quality[:3],)
"""What the model can hold; the last quality is out of reach."""


def tables() -> dict[str, pa.Table]:
    """Payments over 60 days, a tenth of them bad: the large ones, and in one country at random."""
    rng = np.random.default_rng(0)
    at = np.sort(START + rng.integers(0, 60 * DAY, ROWS))
    country = rng.choice(["NL", "DE", "FR", "BE"], ROWS)
    amount = rng.lognormal(3, 1, ROWS)
    risk = np.where(country == "FR", -1.2, -6 + 3 * (amount > 60) + 1.5 * (amount > 120) + 2 * (country == "DE"))
    bad = rng.random(ROWS) < 1 / (1 + np.exp(-risk))
    ids = [f"p{i}" for i in range(ROWS)]
    paid = {"payment": ids, "paid_at": at, "card": [f"c{one}" for one in rng.integers(0, 400, ROWS)], "country": country, "amount": amount}
    return {"payments": pa.table(paid), "verdicts": pa.table({"payment": ids, "decided_at": at + 30 * HOUR, "bad": bad})}


def build(path: Path, declared: ms.System = system) -> Workspace:
    """A workspace at ``path``: events logged, a first version at 50 days promoted whatever the gate said, a second at 60 days."""
    space = Workspace(path)
    path.mkdir(parents=True, exist_ok=True)
    log, registry, tracker = EventLog(space.events), Registry(space.registry), Tracker(space.runs)
    ingestor = Ingestor(log, {one.name: one for one in (declared.request, *declared.sources)}, Quarantine(space.quarantine))
    for name, table in tables().items():
        ingestor.ingest(name, table, at=NOW)
    offline = Tables(space.tables)
    offline.catch_up(log)
    registry.register("system", declared.name, {"hash": declared.hash}, {"system.json": declared.to_json().encode()}, at=NOW)
    retrainer = Retrainer(declared, registry, DatasetBuilder(declared, offline), "test", 1, tracker)
    for number, at in enumerate((NOW - 10 * DAY, NOW)):
        version, _ = retrainer.train(retrainer.dataset(at), at)
        if not number:
            registry.decide(declared.name, "promote", version.id, at=at, by="test", reason="test", evidence={"despite": "test"})
    for one in (log, registry, tracker):
        one.close()
    return space
