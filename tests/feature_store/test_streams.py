"""Micro-batches of a stream: each counts once, and what cannot be right is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from mainspring.clock import HOUR
from mainspring.columns import to_values
from mainspring.errors import StorageError
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.storage.key_value import KeyValue
from mainspring.storage.stores import open_key_value

payments = ms.Source("payments", {"id": int, "at": datetime, "card": str, "shop": str, "x": float}, event_time="at", event_id="id")
refunds = ms.Source("refunds", {"id": int, "at": datetime, "card": str}, event_time="at", event_id="id")
asked = ms.Source("asked", {"id": int, "at": datetime, "card": str, "shop": str}, event_time="at", event_id="id")
card, shop = payments.per("card"), payments.per("shop")
NOW = 100 * HOUR


def a_system(*features: ms.spec.Aggregate) -> ms.System:
    return ms.System("stream", "?", asked, features, ms.Label(payments, "x", on="id", matures_after="1d"), ms.LightGBM())


system = a_system(card.count(), card.sum("id"), card.last("x"), shop.sum("x", "2h"), refunds.per("card", name="refunded").count())


def events(first: int, count: int) -> pa.RecordBatch:
    ids = list(range(first, first + count))
    times = [NOW - (50 - one) * HOUR for one in ids]
    columns = {"id": ids, "at": times, "card": [f"c{one % 3}" for one in ids], "shop": ["s"] * count, "x": [one / 7 for one in ids]}
    types = {"card": pa.string(), "shop": pa.string(), "x": pa.float64()}
    columns |= {"_event_id": ids, "_event_time": times, "_known_time": times}
    return pa.RecordBatch.from_pydict({name: pa.array(values, types.get(name, pa.int64())) for name, values in columns.items()})


def read(online: OnlineStore) -> list[list[object]]:
    return [online.read({"card": f"c{number}", "shop": "s"}, NOW).values for number in range(3)]


@pytest.fixture(params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyValue]:
    url = f"lmdb:{tmp_path}/online" if request.param == "lmdb" else f"{request.getfixturevalue('redis_url')}#{tmp_path}"
    opened = open_key_value(url)
    yield opened
    opened.close()


def test_a_batch_that_comes_again_changes_nothing(store: KeyValue) -> None:
    online = OnlineStore(system, store)
    assert online.apply_batch("a", 0, "payments", events(0, 10), "run")
    held = list(store.scan(b""))
    assert not online.apply_batch("a", 0, "payments", events(0, 10), "run")
    assert not OnlineStore(system, store).apply_batch("a", 0, "payments", events(5, 20), "run")
    assert list(store.scan(b"")) == held
    assert [row[0] for row in read(online)] == [4, 3, 3]
    assert online.apply_batch("a", 1, "payments", events(0, 0), "run")
    assert online.apply_batch("a", 2, "payments", events(10, 2), "run")
    assert [row[0] for row in read(online)] == [4, 4, 4]


def test_streams_count_apart_and_beside_the_log(store: KeyValue) -> None:
    online = OnlineStore(system, store)
    assert online.apply_batch("a", 0, "payments", events(0, 9))
    assert online.apply_batch("b", 0, "payments", events(9, 9), "other")
    assert online.offset == 0
    assert [row[0] for row in read(online)] == [6, 6, 6]
    assert not online.apply_batch("c", 7, "nobody", events(0, 9))


def test_what_a_view_lacks_is_refused_and_nothing_is_folded(store: KeyValue) -> None:
    one, both = OnlineStore(a_system(card.count()), store), OnlineStore(a_system(card.count(), shop.count()), store)
    assert one.apply_batch("a", 0, "payments", events(0, 9), "run")
    held = list(store.scan(b""))
    with pytest.raises(StorageError, match="View 'card', stream 'a': batch 1 of it is due, not 2"):
        one.apply_batch("a", 2, "payments", events(9, 9), "run")
    with pytest.raises(StorageError, match="View 'shop', stream 'a': batch 0 of it is due, not 1"):
        both.apply_batch("a", 1, "payments", events(9, 9), "run")
    with pytest.raises(StorageError, match="View 'card', stream 'a': its batches are numbered anew"):
        one.apply_batch("a", 0, "payments", events(0, 18), "another run")
    assert list(store.scan(b"")) == held


@settings(max_examples=25)
@given(st.lists(st.integers(0, 7), max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_any_cut_and_repetition_ends_where_the_offline_store_does(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], again: list[bool]
) -> None:
    folder = tmp_path_factory.mktemp("streams")
    store = open_key_value(f"lmdb:{folder}/online")
    first = 0
    for number, count in enumerate(cuts):
        for _ in range(1 + again[number]):
            OnlineStore(system, store).apply_batch("a", number, "payments", events(first, count))
        first += count
    pq.write_table(pa.Table.from_batches([events(0, first)]), folder / "payments.parquet")
    questions = pa.table({"card": ["c0", "c1", "c2"], "shop": ["s"] * 3, AS_OF: [NOW] * 3})
    files = {"payments": [str(folder / "payments.parquet")], "refunds": []}
    built = OfflineStore(system, files.__getitem__).features(questions)
    served = read(OnlineStore(system, store))
    store.close()
    assert served == [list(row) for row in zip(*map(to_values, built.values()), strict=True)]
