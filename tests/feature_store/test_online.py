"""The online store: batches, damage, and declarations that change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mainspring as ms
from mainspring.clock import MINUTE, parse_instant
from mainspring.columns import to_values
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.online_view import OnlineView
from mainspring.schema import Status
from mainspring.storage.event_log import EventLog
from mainspring.storage.key_value import KeyValue
from mainspring.storage.stores import open_key_value

T = parse_instant("2025-03-01T12:00:00Z")
paid = ms.Source("paid", {"id": str, "at": datetime, "card": str, "shop": str, "amount": float}, event_time="at", event_id="id")
card, shop = paid.per("card"), paid.per("shop")


def system(*features: Any) -> ms.System:
    return ms.System("s", "?", paid, features, ms.Label(paid, "amount", on="id", matures_after="1d"), ms.LightGBM())


def payments(first: int, count: int) -> pa.RecordBatch:
    numbers = range(first, first + count)
    times = np.array([T + number * MINUTE for number in numbers])
    ids = [f"p{number}" for number in numbers]
    return pa.RecordBatch.from_pydict(
        {
            **{"id": ids, "at": times, "card": [f"c{number % 3}" for number in numbers], "shop": ["s"] * count},
            **{"amount": [float(number) for number in numbers], "_event_id": ids, "_event_time": times, "_known_time": times},
        }
    )


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    log = EventLog(tmp_path / "log", fsync=False)
    log.append("paid", payments(0, 30))
    return log


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyValue]:
    store = open_key_value(f"lmdb:{tmp_path}/online")
    yield store
    store.close()


@pytest.fixture(params=["together", "one by one"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are answered together, however few, or one by one."""
    monkeypatch.setattr(OnlineView, "few", 0 if request.param == "together" else 1_000)


@pytest.mark.usefixtures("few")
def test_a_batch_gives_what_single_reads_give(log: EventLog, store: KeyValue) -> None:
    online = OnlineStore(system(card.count("10m"), card.last("amount"), shop.sum("amount")), store)
    online.apply(log)
    cards = ["c0", "never", "c2", None]
    instants = [T + 20 * MINUTE, T, T + 5 * MINUTE, T]
    many = online.read_many({"card": cards, "shop": ["s"] * 4}, instants)
    assert many.values["card__count_10m"].tolist() == [3, 0, 1, 0]
    assert many.values["card__amount_last"].tolist() == pytest.approx([18.0, np.nan, 2.0, np.nan], nan_ok=True)
    for row, (name, at) in enumerate(zip(cards, instants, strict=True)):
        one = online.read({"card": name, "shop": "s"}, at)
        assert many.statuses[row].tolist() == one.statuses
        together = [to_values(many.values[name])[row] for name in online.names]
        assert together == one.values


@pytest.mark.usefixtures("few")
def test_one_damaged_row_makes_its_view_unavailable_and_no_other(log: EventLog, store: KeyValue) -> None:
    online = OnlineStore(system(card.count("10m"), shop.sum("amount")), store)
    online.apply(log)
    before = online.read({"card": "c0", "shop": "s"}, T + 40 * MINUTE)
    damaged = next(key for key, value in store.scan(b"") if key.endswith(b"c0"))
    with store.transaction() as transaction:
        transaction.put(damaged, (transaction.get(damaged) or b"")[:-1] + b"?")
    bad = online.read({"card": "c0", "shop": "s"}, T + 40 * MINUTE)
    assert bad.statuses == [Status.UNAVAILABLE, Status.PRESENT]
    assert bad.values == [None, before.values[1]]
    none = online.read_many({"card": [], "shop": []}, [])
    assert {len(column) for column in none.values.values()} == {len(none.statuses)} == {0}
    many = online.read_many({"card": ["c1", "c0"], "shop": ["s", "s"]}, [T + 40 * MINUTE] * 2)
    assert many.statuses.tolist() == [[Status.PRESENT, Status.PRESENT], [Status.UNAVAILABLE, Status.PRESENT]]
    assert many.values["card__count_10m"].tolist() == [0, None]


def test_a_view_declared_otherwise_is_filled_from_the_log_while_the_others_go_on(log: EventLog, store: KeyValue) -> None:
    OnlineStore(system(card.count(), shop.sum("amount")), store).apply(log)
    log.append("paid", payments(30, 10))
    changed = OnlineStore(system(card.count(), shop.sum("amount"), shop.max("amount")), store)
    assert changed.offset == 0
    changed.apply(log)
    assert changed.offset == log.end == 40
    served = dict(zip(changed.names, changed.read({"card": "c0", "shop": "s"}, T + 60 * MINUTE).values, strict=True))
    assert served == {"card__count": 14, "shop__amount_sum": sum(range(40)), "shop__amount_max": 39.0}
    old = OnlineStore(system(card.count(), shop.sum("amount")), store)
    assert old.offset == 30, "the old declaration's own view has not been kept up"
    old.apply(log)
    assert old.read({"card": "c0", "shop": "s"}, T + 60 * MINUTE).values == [14, sum(range(40))]


@pytest.mark.parametrize("texts", [False, True])
def test_rows_built_together_are_the_bytes_of_rows_built_one_by_one(texts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n = 400
    times = np.sort(rng.integers(T, T + 600 * MINUTE, n))
    ids = [f"p{number:03}" for number in range(n)]
    batch = pa.RecordBatch.from_pydict(
        {
            **{"id": ids, "at": times, "card": [f"c{card}" for card in rng.integers(0, 250, n)], "shop": rng.choice(["s", "t", "long"], n)},
            **{
                "amount": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
                "_event_id": ids,
                "_event_time": times,
                "_known_time": times,
            },
        }
    )
    features = [card.last("amount"), card.count("1d")] + ([card.last("shop"), card.distinct("shop", "1d")] if texts else [])
    (view, aggregates), *_ = system(*features).views.items()
    incoming = OnlineView(view, aggregates).incoming([batch])
    together, _ = incoming.rows([None] * len(incoming.keys), lambda _: b"")
    monkeypatch.setattr("mainspring.feature_store.incoming._MANY", n)
    assert together == incoming.rows([None] * len(incoming.keys), lambda _: b"")[0]
    assert len(set(map(len, together))) > 1


@pytest.mark.usefixtures("few")
def test_a_key_that_many_rows_share_is_read_once(log: EventLog, store: KeyValue, monkeypatch: pytest.MonkeyPatch) -> None:
    online = OnlineStore(system(card.count("1h"), shop.sum("amount", "1h"), card.last("amount")), store)
    online.apply(log)
    asked: list[bytes] = []
    get_many = store.get_many
    monkeypatch.setattr(store, "get_many", lambda keys: asked.extend(keys) or get_many(keys))  # type: ignore[func-returns-value]
    at, shared = T + 40 * MINUTE, "s"
    cards = [f"c{number % 2}" for number in range(6)]
    many = online.read_many({"card": cards, "shop": [shared] * 6}, [at, at, at, at, at, at - 30 * MINUTE])
    assert len(asked) == 2 * (3 + 2), "first and second rows, of a card and instant once, of the shop at two instants"
    for row, name in enumerate(cards):
        one = online.read({"card": name, "shop": shared}, at if row < 5 else at - 30 * MINUTE)
        assert [to_values(many.values[name])[row] for name in online.names] == one.values
        assert many.statuses[row].tolist() == one.statuses


@pytest.mark.usefixtures("few")
def test_keys_of_any_length_are_keys_of_their_own(log: EventLog, store: KeyValue) -> None:
    online = OnlineStore(system(card.count("1d")), store)
    names = ["k" * length for length in (300, 396, 397, 398, 511, 5_000)]
    batch = payments(100, len(names))
    log.append("paid", batch.set_column(batch.schema.get_field_index("card"), "card", pa.array(names)))
    online.apply(log)
    served = online.read_many({"card": [*names, "k" * 399]}, [T + 200 * MINUTE] * 7)
    assert served.values["card__count_1d"].tolist() == [1] * len(names) + [0]
    assert served.statuses[-1].tolist() == [Status.UNKNOWN_KEY]
