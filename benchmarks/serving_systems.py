"""Two systems with features from a store: payments (one key, three views, twelve aggregates) and a ranker (30 features a candidate)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

import mainspring as ms
from mainspring.clock import DAY, MINUTE, format_instant, parse_instant
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.loop.retrain import Retrainer
from mainspring.model_registry.registry import Registry
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder

START = parse_instant("2025-01-01")
NOW = START + 40 * DAY
ROWS, CARDS, USERS, ITEMS, CANDIDATES = 8_000, 500, 500, 2_000, 500
MODEL = ms.LightGBM(trees=200, leaves=31)

_paid = {"id": str, "at": datetime, "card": str, "amount": float}
payments = ms.Source("payments", _paid, event_time="at", event_id="id")
logins = ms.Source("logins", {"id": str, "at": datetime, "card": str, "seconds": float}, event_time="at", event_id="id")
refunds = ms.Source("refunds", _paid, event_time="at", event_id="id")
outcomes = ms.Source("outcomes", {"id": str, "at": datetime, "loss": float}, event_time="at", event_id="id")
_paying, _login, _refund = payments.per("card"), logins.per("card", name="login"), refunds.per("card", name="refund")
PAYMENTS = ms.System(
    "payments_bench",
    "What will it cost?",
    payments,
    [
        payments["amount"],
        *[_paying.count("1h"), _paying.count("1d"), _paying.sum("amount", "1d"), _paying.mean("amount", "7d"), _paying.max("amount", "7d")],
        *[_login.count("1d"), _login.mean("seconds", "7d"), _login.last("seconds"), _login.count("30d")],
        *[_refund.count("30d"), _refund.sum("amount", "30d"), _refund.last("amount")],
    ],
    ms.Label(outcomes, "loss", on="id", matures_after="1h"),
    MODEL,
)

shows = ms.Source(
    "shows", {"id": str, "at": datetime, "user": str, "item": str, "place": str, "price": float}, event_time="at", event_id="id"
)
clicks = ms.Source(
    "clicks", {"id": str, "at": datetime, "user": str, "item": str, "clicked": float, "dwell": float}, event_time="at", event_id="id"
)
items = ms.Source(
    "items", {"item": str, "since": datetime, "age": float, "size": float, "kind": str}, event_time="since", event_id="item", kind="table"
)
_user, _item, _facts = clicks.per("user"), clicks.per("item"), items.per("item", name="facts")
RANKER = ms.System(
    "ranker_bench",
    "How likely is a click?",
    shows,
    [
        *[shows["place"], shows["price"]],
        *[
            one
            for view in (_user, _item)
            for w in ("1h", "1d", "7d")
            for one in (view.count(w), view.mean("dwell", w), view.sum("clicked", w))
        ],
        *[one for view in (_user, _item) for one in (view.max("dwell", "7d"), view.min("dwell", "7d"), view.count("30d"))],
        *[_item.mean("clicked", "30d"), _facts.last("age"), _facts.last("size"), _facts.last("kind")],
    ],
    ms.Label(clicks, "clicked", on="id", matures_after="1h", otherwise=0.0),
    MODEL,
)


def payments_workspace(folder: Path) -> Workspace:
    """A trained and promoted version over its events."""
    rng = np.random.default_rng(0)
    at, ids, amount = _instants(rng), [f"p{k}" for k in range(ROWS)], rng.uniform(1, 500, ROWS)

    def cards() -> list[str]:
        return [f"c{k}" for k in rng.integers(0, CARDS, ROWS)]

    tables = {
        "payments": {"id": ids, "at": at, "card": cards(), "amount": amount},
        "logins": {"id": ids, "at": _instants(rng), "card": cards(), "seconds": rng.uniform(1, 60, ROWS)},
        "refunds": {"id": ids, "at": _instants(rng), "card": cards(), "amount": rng.uniform(1, 500, ROWS)},
        "outcomes": {"id": ids, "at": at + MINUTE, "loss": amount * rng.uniform(0, 1, ROWS)},
    }
    return _trained(PAYMENTS, folder, tables)


def ranker_workspace(folder: Path) -> Workspace:
    """A trained and promoted version over its events."""
    rng = np.random.default_rng(0)
    at, ids, clicked = _instants(rng), [f"s{k}" for k in range(ROWS)], (rng.random(ROWS) < 0.3).astype(float)
    known = [f"i{k}" for k in range(ITEMS)]
    pairs = {"user": [f"u{k}" for k in rng.integers(0, USERS, ROWS)], "item": [f"i{k}" for k in rng.integers(0, ITEMS, ROWS)]}
    sizes = {"age": rng.uniform(0, 9, ITEMS), "size": rng.uniform(0, 9, ITEMS), "kind": rng.choice(["a", "b"], ITEMS)}
    tables = {
        "shows": {"id": ids, "at": at, **pairs, "place": rng.choice(["home", "feed"], ROWS), "price": rng.uniform(1, 50, ROWS)},
        "items": {"item": known, "since": [START - DAY] * ITEMS, **sizes},
        "clicks": {"id": ids, "at": at + MINUTE, **pairs, "clicked": clicked, "dwell": rng.uniform(0, 100, ROWS)},
    }
    return _trained(RANKER, folder, tables)


def payment_bodies(count: int) -> list[bytes]:
    """Requests of known cards, a day after the last event."""
    rng, at = np.random.default_rng(1), format_instant(NOW - DAY)
    asked = zip(rng.integers(0, CARDS, count).tolist(), rng.uniform(1, 500, count).tolist(), strict=True)
    return [msgspec.json.encode({"id": f"r{k}", "at": at, "card": f"c{card}", "amount": amount}) for k, (card, amount) in enumerate(asked)]


def candidate_bodies(count: int) -> list[bytes]:
    """Requests of ``POST /v1/<system>/rows``: 500 different items for one user each."""
    rng, at = np.random.default_rng(1), format_instant(NOW - DAY)
    bodies = []
    for user in rng.integers(0, USERS, count).tolist():
        chosen = zip(rng.permutation(ITEMS)[:CANDIDATES].tolist(), rng.uniform(1, 50, CANDIDATES).tolist(), strict=True)
        rows = [{"id": f"c{k}", "item": f"i{item}", "price": price} for k, (item, price) in enumerate(chosen)]
        bodies.append(msgspec.json.encode({"shared": {"user": f"u{user}", "at": at, "place": "home"}, "rows": rows}))
    return bodies


def _instants(rng: np.random.Generator) -> Any:
    return np.sort(START + rng.integers(0, 38 * DAY, ROWS))


def _trained(system: ms.System, folder: Path, columns: dict[str, dict[str, Any]]) -> Workspace:
    folder.mkdir()
    space = Workspace(folder)
    log, registry = EventLog(space.events), Registry(space.registry)
    sources = {source.name: source for source in (system.request, *system.sources)}
    ingestor = Ingestor(log, sources, Quarantine(space.quarantine))
    for name, held in columns.items():
        ingestor.ingest(name, pa.table(held), at=NOW)
    tables = Tables(space.tables)
    tables.catch_up(log)
    registry.register("system", system.name, {"hash": system.hash}, {"system.json": system.to_json().encode()}, at=NOW)
    retrainer = Retrainer(system, registry, DatasetBuilder(system, tables), "benchmark", threads=1)
    version, _ = retrainer.train(retrainer.dataset(NOW), NOW)
    registry.decide(system.name, "promote", version.id, at=NOW, by="benchmark", reason="first version", evidence={})
    registry.close()
    return space
