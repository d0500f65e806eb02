"""Stores in shards: keys that lie apart, one number of shards for ever, addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.errors import StorageError
from mainspring.storage.sharded import ShardedKeyValue, shard_of
from mainspring.storage.stores import open_key_value, split_shards, with_shards

_keys = st.binary(min_size=7, max_size=11).filter(lambda key: key != b"\x00shards")


@pytest.fixture(params=["lmdb", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        request.getfixturevalue("redis_url")
        return f"{os.environ['TEST_REDIS_URL']}#{tmp_path}"
    return f"lmdb:{tmp_path}/store"


@pytest.fixture
def store(address: str) -> Iterator[ShardedKeyValue]:
    opened = open_key_value(with_shards(address, 3))
    assert isinstance(opened, ShardedKeyValue)
    with closing(opened):
        yield opened


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.dictionaries(_keys, st.binary(max_size=5), max_size=30), prefix=st.binary(max_size=1))
def test_keys_of_all_shards_are_read_as_one(store: ShardedKeyValue, pairs: dict[bytes, bytes], prefix: bytes) -> None:
    for key in [key for key, _ in store.scan(b"")]:
        with store.transaction() as transaction:
            transaction.delete(key)
    for key, value in pairs.items():
        with store.transaction() as transaction:
            transaction.put(key, value)
    asked = [b"nothing here", *reversed(pairs)]
    assert store.get_many(asked) == [pairs.get(key) for key in asked]
    assert list(store.scan(prefix)) == sorted(item for item in pairs.items() if item[0].startswith(prefix))
    for number, shard in enumerate(store.shards):
        assert all(shard_of(key[8:], 3) == number for key, _ in shard.scan(b"") if key != b"\x00shards")


def test_a_transaction_that_leaves_its_shard_changes_nothing(store: ShardedKeyValue) -> None:
    here, there = b"12345678a", next(b"12345678%d" % n for n in range(99) if shard_of(b"%d" % n, 3) != shard_of(b"a", 3))

    def stray() -> None:
        with store.transaction() as transaction:
            transaction.put(here, b"1")
            transaction.put(there, b"2")

    with pytest.raises(StorageError, match="another shard"):
        stray()
    assert store.get_many([here, there]) == [None, None]


def test_another_number_of_shards_is_refused_with_the_mend(address: str) -> None:
    open_key_value(with_shards(address, 2)).close()
    open_key_value(with_shards(address, 2)).close()
    for other in (1, 3):
        with pytest.raises(StorageError, match=r"made with 2 shards, not \d. Open it with shards=2, or remove it and rebuild"):
            open_key_value(with_shards(address, other))


def test_a_store_in_use_is_not_divided(address: str) -> None:
    with closing(open_key_value(address)) as store, store.transaction() as transaction:
        transaction.put(b"a", b"1")
    with pytest.raises(StorageError, match="made with 1 shard, not 2"):
        open_key_value(with_shards(address, 2))


@pytest.mark.parametrize(
    ("plain", "divided"),
    [
        ("lmdb:some/folder", "lmdb:some/folder?shards=4"),
        ("redis://h:1/0#ns", "redis://h:1/0?shards=4#ns"),
        ("redis://h:1/0?protocol=3#ns", "redis://h:1/0?protocol=3&shards=4#ns"),
    ],
)
def test_the_number_of_shards_stands_in_the_address(plain: str, divided: str) -> None:
    assert with_shards(plain, 4) == divided
    assert split_shards(divided) == (plain, 4)
    assert split_shards(plain) == (plain, 1)
    assert with_shards(divided, 1) == plain
    with pytest.raises(StorageError, match="at least one shard"):
        split_shards("lmdb:x?shards=0")
