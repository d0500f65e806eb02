from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pytest
import redis

from mainspring.errors import StorageError
from mainspring.storage.log import Log
from mainspring.storage.stores import open_log


@pytest.fixture
def stream() -> str:
    return f"stream-{os.urandom(4).hex()}"


@pytest.fixture
def log(redis_url: str, stream: str) -> Iterator[Log]:
    with closing(open_log(f"{redis_url}#{stream}")) as opened:
        for start in (0, 3, 6):
            opened.append("a", pa.record_batch({"n": range(start, start + 3)}))
        yield opened


def test_an_entry_is_named_by_its_first_event_and_their_number(log: Log, redis_url: str, stream: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert [name for name, _ in client.xrange(stream)] == [b"0-3", b"3-3", b"6-3"]


def test_what_was_trimmed_is_missed_where_it_is_read_and_not_elsewhere(log: Log, redis_url: str, stream: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.xtrim(stream, minid="3", approximate=False)
    assert [frame.offset for frame in log.read(4)] == [4, 6]
    with pytest.raises(StorageError, match="event 1 is gone"):
        list(log.read(1))


def test_a_hole_is_never_jumped_over(log: Log, redis_url: str, stream: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.xdel(stream, "3-3")
    reader = log.read()
    assert next(reader).offset == 0
    with pytest.raises(StorageError, match="event 3 is gone"):
        next(reader)


def test_numbers_go_on_when_the_last_entries_are_gone(log: Log, redis_url: str, stream: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.xdel(stream, "6-3")
        assert log.end == 9
        assert log.append("a", pa.record_batch({"n": [9]})) == 9
        client.xtrim(stream, maxlen=0, approximate=False)
    assert log.append("a", pa.record_batch({"n": [10]})) == 10
    assert [frame.batch["n"].to_pylist() for frame in log.read(10)] == [[10]]


def test_numbers_stay_exact_beyond_what_a_short_float_shows(redis_url: str, stream: str) -> None:
    first = 123_456_789_012_345
    with redis.Redis.from_url(redis_url) as client, closing(open_log(f"{redis_url}#{stream}")) as log:
        client.xadd(stream, {"frame": b""}, id=f"{first}-1")
        assert log.append("a", pa.record_batch({"n": [1, 2]})) == first + 1
        assert log.end == first + 3


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1/0#events: .*Start the server") as caught:
        open_log("redis://user:secret@127.0.0.1:1/0#events")
    assert "secret" not in str(caught.value)
