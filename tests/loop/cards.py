"""A small system of card payments for tests of erasure. As a script: ``cards.py WORKSPACE CHANGE``: erase, killed before that change."""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

import mainspring as ms
from mainspring.clock import DAY, HOUR, ManualClock, parse_instant
from mainspring.feature_store.online import OnlineStore
from mainspring.gateway.backend import opened
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.loop.erase import erase
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry.registry import Registry
from mainspring.storage.event_log import EventLog
from mainspring.storage.stores import open_key_value
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder

SECRET = "card-5f2c91d7e0b84a63-of-somebody"
START = parse_instant("2025-01-01")
NOW = START + 30 * DAY
ROWS = 2_000

paid = ms.Source(
    "paid",
    {"payment": str, "paid_at": datetime, "card": str | None, "shop": str, "amount": float},
    event_time="paid_at",
    event_id="payment",
    ranges={"amount": (0, 1_000)},
)
settled = ms.Source(
    "settled", {"payment": str, "settled_at": datetime, "payer": str, "fee": float}, event_time="settled_at", event_id="payment"
)
shops = ms.Source("shops", {"shop": str, "since": datetime, "size": float}, event_time="since", event_id="shop", kind="table")
by_card, by_shop, by_payer = paid.per("card"), paid.per("shop"), settled.per("payer", on="card", name="payer")
newest = by_shop.last_k("card", 3)
system = ms.System(
    "cards",
    question="What is the fee?",
    request=paid,
    features=[
        paid["amount"],
        *(by_card.count("7d"), by_card.sum("amount"), by_payer.mean("fee", "30d")),
        *(by_shop.count(), by_shop.distinct("card", "7d"), newest, by_shop.mean("amount")),
        shops.per("shop", name="place").last("size"),
    ],
    label=ms.Label(settled, "fee", on="payment", matures_after="2d"),
    model=ms.LightGBM(trees=5, leaves=4, holdout="7d", interval=(0.1, 0.9), ignore=[newest.name]),
    baselines=[ms.LinearRule("line", on="amount")],
    policy=ms.Policy(fallback=["line"], feature_deadline="2s"),
)


def tables(secret: str | None = SECRET) -> dict[str, pa.Table]:
    """Payments of fifty cards in five shops; one card in ten payments is ``secret``, or left out where that is None."""
    rng = np.random.default_rng(0)
    at = np.sort(START + rng.integers(0, 29 * DAY, ROWS))
    number = rng.integers(0, 50, ROWS)
    mine = rng.random(ROWS) < 0.1
    cards = np.where(mine, secret or "", np.char.add("card-", number.astype(str)))
    amount = rng.uniform(1, 100, ROWS)
    payments = [f"p{i}" for i in range(ROWS)]
    columns = {"payment": payments, "paid_at": at, "card": cards.tolist(), "shop": [f"s{one % 5}" for one in number], "amount": amount}
    fees = {"payment": payments, "settled_at": at + 20 * HOUR, "payer": cards.tolist(), "fee": amount * 0.02 + rng.normal(0, 0.1, ROWS)}
    places = {"shop": [f"s{i}" for i in range(5)], "since": [START - DAY] * 5, "size": [float(i) for i in range(5)]}
    found = {"paid": pa.table(columns), "settled": pa.table(fees), "shops": pa.table(places)}
    if secret is None:
        found |= {name: found[name].filter(pa.array(~mine)) for name in ("paid", "settled")}
    return found


def fill(space: Workspace, secret: str | None = SECRET) -> None:
    """Log the events in frames of 200, fold them into the online store and write the tables."""
    log = EventLog(space.events, segment_bytes=30_000, fsync=False)
    ingestor = Ingestor(log, {one.name: one for one in (system.request, *system.sources)}, Quarantine(space.quarantine))
    for name, table in tables(secret).items():
        for begin in range(0, len(table), 200):
            ingestor.ingest(name, table.slice(begin, 200), at=NOW)
    Tables(space.tables).catch_up(log)
    store = open_key_value(space.online_url)
    OnlineStore(system, store).apply(log)
    store.close()


def build(path: Path) -> Workspace:
    """A workspace with a promoted version, answers, rejected rows and a training set, all of which hold `SECRET`."""
    space = Workspace(path)
    fill(space)
    registry = Registry(space.registry)
    registry.register("system", system.name, {"hash": system.hash}, {"system.json": system.to_json().encode()}, at=NOW)
    retrainer = Retrainer(system, registry, DatasetBuilder(system, Tables(space.tables)), "test", threads=1)
    version, _ = retrainer.train(retrainer.dataset(NOW), NOW)
    registry.decide(system.name, "promote", version.id, at=NOW, by="test", reason="test", evidence={"despite": "test"})
    registry.close()
    with opened(space, stream=False) as backend:
        for i in range(40):
            ask = {"payment": f"q{i}", "paid_at": NOW + i, "card": SECRET if i % 4 == 0 else f"card-{i}", "shop": "s1", "amount": 5.0}
            backend.answer(ask, request_id=f"r{i}", explain=False)
        bad = {"payment": "b", "paid_at": "2025-01-02T00:00:00Z", "shop": "s1", "amount": -1.0}
        done = backend.ingest("paid", [{**bad, "card": SECRET}, {**bad, "card": "card-1"}, {**bad, "card": SECRET}])
        assert len(done["rejected"]) == 1, done
    return space


def killed_before(change: int, folder: str) -> None:
    """Kill this process before change number ``change`` (from 1) to a file or folder under ``folder``."""
    changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        made = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or (event == "open" and str(arguments[0]).endswith(".tmp"))
        if made and str(arguments[0]).startswith(folder):
            changes += 1
            if changes == change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    killed_before(int(sys.argv[2]), sys.argv[1])
    erase(system, Workspace(Path(sys.argv[1])), "card", SECRET, ManualClock(NOW))
