from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.errors import StorageError
from mainspring.storage.adapters.lmdb import LmdbKeyValue
from mainspring.storage.adapters.redis import RedisKeyValue
from mainspring.storage.key_value import KeyValue
from mainspring.storage.stores import open_key_value

Opener = Callable[[Path], KeyValue]


def open_redis(path: Path) -> KeyValue:
    return RedisKeyValue(os.environ["TEST_REDIS_URL"], namespace=str(path))


def open_sharded_lmdb(path: Path) -> KeyValue:
    return open_key_value(f"lmdb:{path}?shards=3")


def open_sharded_redis(path: Path) -> KeyValue:
    return open_key_value(f"{os.environ['TEST_REDIS_URL']}?shards=3#{path}")


@pytest.fixture(params=[LmdbKeyValue, open_redis, open_sharded_lmdb, open_sharded_redis], ids=lambda opener: opener.__name__)
def open_store(request: pytest.FixtureRequest) -> Opener:
    opener: Opener = request.param
    if "redis" in request.node.name:
        request.getfixturevalue("redis_url")
    return opener


@pytest.fixture
def store(open_store: Opener, tmp_path: Path) -> Iterator[KeyValue]:
    with closing(open_store(tmp_path / "store")) as opened:
        yield opened


def test_values_come_in_the_order_of_the_keys(store: KeyValue) -> None:
    with store.transaction() as transaction:
        transaction.put_many([b"b", b"a"], [b"of b", b"of a"])
        transaction.put(b"empty", b"")
    with store.transaction() as transaction:
        transaction.put(b"\xff" * 511, b"of " + b"\xff" * 511)
    assert store.get_many([b"a", b"none", b"\xff" * 511, b"empty", b"a"]) == [b"of a", None, b"of " + b"\xff" * 511, b"", b"of a"]
    assert store.get_many([]) == []


def test_a_transaction_sees_its_own_writes_and_commits_all_or_nothing(store: KeyValue) -> None:
    with store.transaction() as transaction:
        transaction.put(b"a", b"1")
        transaction.put(b"gone", b"1")
        assert store.get_many([b"a"]) == [None]
        assert (transaction.get(b"a"), transaction.get(b"none")) == (b"1", None)
        assert transaction.get_many([b"none", b"a", b"a"]) == [None, b"1", b"1"]

    def fail() -> None:
        with store.transaction() as transaction:
            transaction.put(b"a", b"2")
            transaction.delete(b"gone")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert store.get_many([b"a", b"gone"]) == [b"1", b"1"]
    with store.transaction() as transaction:
        transaction.delete(b"gone")
        transaction.delete(b"never there")
        assert transaction.get(b"gone") is None
    assert store.get_many([b"gone"]) == [None]


def test_a_scan_is_one_consistent_state_in_order(store: KeyValue) -> None:
    with store.transaction() as transaction:
        for key in (b"a", b"ab\xff", b"ab", b"b", b"ab\x00"):
            transaction.put(key, key)
    scan = store.scan(b"ab")
    assert next(scan) == (b"ab", b"ab")
    with store.transaction() as transaction:
        transaction.put(b"ab\x01", b"")
        transaction.delete(b"ab\xff")
    assert [key for key, _ in scan] == [b"ab\x00", b"ab\xff"]
    assert [key for key, _ in store.scan(b"ab")] == [b"ab", b"ab\x00", b"ab\x01"]
    assert [key for key, _ in store.scan(b"")] == [b"a", b"ab", b"ab\x00", b"ab\x01", b"b"]
    assert list(store.scan(b"\xff")) == []


@pytest.mark.parametrize("key", [b"", b"x" * 512])
def test_a_key_of_another_length_is_refused(store: KeyValue, key: bytes) -> None:
    with pytest.raises(StorageError, match=r"bytes\. Use 1 to 511"):
        store.get_many([b"a", key])
    for act in ("get", "put", "delete"):
        with pytest.raises(StorageError, match=r"bytes\. Use 1 to 511"), store.transaction() as transaction:
            getattr(transaction, act)(key, *([b""] if act == "put" else []))
    assert list(store.scan(b"")) == []


_keys = st.binary(min_size=1, max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.lists(st.tuples(_keys, st.one_of(st.none(), st.binary(max_size=20))), max_size=8), max_size=8),
    prefix=st.binary(max_size=1),
)
def test_it_holds_what_a_dict_would(store: KeyValue, changes, prefix: bytes) -> None:
    with store.transaction() as transaction:
        for key in [key for key, _ in store.scan(b"")]:
            transaction.delete(key)
    expected: dict[bytes, bytes] = {}
    for batch in changes:
        with store.transaction() as transaction:
            for key, value in batch:
                if value is None:
                    transaction.delete(key)
                    expected.pop(key, None)
                else:
                    transaction.put(key, value)
                    expected[key] = value
    asked = [key for batch in changes for key, _ in batch]
    assert store.get_many(asked) == [expected.get(key) for key in asked]
    assert list(store.scan(prefix)) == sorted(item for item in expected.items() if item[0].startswith(prefix))


def _add(store: KeyValue, times: int) -> None:
    for _ in range(times):
        with store.transaction() as transaction:
            value = int(transaction.get(b"left") or 0) + 1
            transaction.put(b"left", str(value).encode())
            transaction.put(b"right", str(value).encode())


def _add_in_a_process(open_store: Opener, path: Path, times: int) -> None:
    with closing(open_store(path)) as store:
        _add(store, times)


def test_several_threads_and_processes_read_and_write(store: KeyValue, open_store: Opener, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_add_in_a_process, args=(open_store, tmp_path / "store", 200)) for _ in range(2)]
    threads = [threading.Thread(target=_add, args=(store, 200)) for _ in range(2)]
    for worker in (*processes, *threads):
        worker.start()
    while any(worker.is_alive() for worker in (*processes, *threads)):
        left, right = store.get_many([b"left", b"right"])
        assert left == right
        processes[0].join(0.01)
    assert [process.exitcode for process in processes] == [0, 0]
    assert store.get_many([b"left", b"right"]) == [b"800", b"800"]


def test_what_was_committed_is_there_when_opened_again(open_store: Opener, tmp_path: Path) -> None:
    for number in range(3):
        with closing(open_store(tmp_path / "store")) as store:
            assert len(list(store.scan(b""))) == number
            with store.transaction() as transaction:
                transaction.put(b"%d" % number, b"")


def test_after_a_vacuum_everything_is_there_but_what_was_deleted(store: KeyValue) -> None:
    with store.transaction() as transaction:
        for number in range(500):
            transaction.put(b"%03d" % number, bytes(200))
    with store.transaction() as transaction:
        for number in range(0, 500, 2):
            transaction.delete(b"%03d" % number)
    assert store.vacuum()
    assert [key for key, _ in store.scan(b"")] == [b"%03d" % number for number in range(1, 500, 2)]
    with store.transaction() as transaction:
        transaction.put(b"more", b"1")
    assert store.get_many([b"001", b"002", b"more"]) == [bytes(200), None, b"1"]
