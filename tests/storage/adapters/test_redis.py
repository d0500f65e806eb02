from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import redis

from mainspring.errors import StorageError
from mainspring.storage.adapters.redis import RedisKeyValue
from mainspring.storage.stores import open_key_value


def test_a_server_that_is_not_there_is_named_with_the_mend() -> None:
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1/0: .*Start the server"):
        RedisKeyValue("redis://user:secret@127.0.0.1:1/0")


def test_a_password_is_never_in_a_message() -> None:
    with pytest.raises(StorageError) as caught:
        RedisKeyValue("redis://user:secret@127.0.0.1:1/0")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "nothing", ""])
def test_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match="Use lmdb:FOLDER or redis://"):
        open_key_value(url)


def test_namespaces_do_not_see_each_other(redis_url: str) -> None:
    with closing(open_key_value(f"{redis_url}#one*")) as one, closing(open_key_value(f"{redis_url}#one")) as other:
        with one.transaction() as transaction:
            transaction.put(b"a", b"1")
        assert other.get_many([b"a"]) == [None]
        assert list(other.scan(b"")) == []
        assert list(one.scan(b"")) == [(b"a", b"1")]


def test_a_read_does_not_wait_longer_than_it_may(redis_url: str) -> None:
    with closing(RedisKeyValue(redis_url, namespace="slow", read_timeout_us=20_000)) as store, redis.Redis.from_url(redis_url) as admin:
        admin.client_pause(400)
        started = time.perf_counter()
        with pytest.raises(StorageError, match="Timeout"):
            store.get_many([b"a"])
        assert time.perf_counter() - started < 0.3
        time.sleep(0.5)
        assert store.get_many([b"a"]) == [None]


def test_a_transaction_whose_lock_was_lost_writes_nothing(redis_url: str) -> None:
    def slow() -> None:
        with store.transaction() as transaction:
            transaction.put(b"a", b"late")
            admin.set(b"lost:\x00lock", b"of another")

    with closing(RedisKeyValue(redis_url, namespace="lost")) as store, redis.Redis.from_url(redis_url) as admin:
        with pytest.raises(StorageError, match="was dropped"):
            slow()
        assert store.get_many([b"a"]) == [None]
        assert admin.get(b"lost:\x00lock") == b"of another"


KILLED = """
import sys
from mainspring.storage.adapters.redis import RedisKeyValue

with RedisKeyValue(sys.argv[1], namespace="killed").transaction() as transaction:
    transaction.put(b"a", b"never")
    print("holds it", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free_at_once_and_that_of_a_living_one_is_not(redis_url: str) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", KILLED, redis_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        closing(RedisKeyValue(redis_url, namespace="killed")) as store,
        ThreadPoolExecutor() as pool,
    ):
        assert process.stdout is not None
        process.stdout.readline()

        def write() -> None:
            with store.transaction() as transaction:
                transaction.put(b"a", b"mine")

        waiting = pool.submit(write)
        time.sleep(1.0)
        assert not waiting.done()
        process.kill()
        waiting.result(timeout=5)
        assert store.get_many([b"a"]) == [b"mine"]
