"""What every event log must do: one order, numbers that grow and stay, reads from anywhere, nothing lost between producers."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import confluent_kafka
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mainspring as ms
from mainspring.errors import StorageError
from mainspring.feature_store.online import OnlineStore
from mainspring.storage.adapters.kafka import ROWS
from mainspring.storage.log import Frame, Log
from mainspring.storage.stores import open_key_value, open_log
from mainspring.storage.tables import Tables

_numbers = itertools.count()


@pytest.fixture(params=["folder", "redis", "kafka"])
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Addresses of new, empty logs of one kind."""
    if request.param == "redis":
        server = request.getfixturevalue("redis_url")
        return lambda: f"{server}#log-{next(_numbers)}"
    if request.param == "kafka":
        cluster = request.getfixturevalue("kafka")
        return lambda: cluster.make_topic(f"log-{next(_numbers)}")
    return lambda: f"file:{tmp_path}/log-{next(_numbers)}"


@pytest.fixture
def url(make_url: Callable[[], str]) -> str:
    return make_url()


@pytest.fixture
def log(url: str) -> Iterator[Log]:
    with closing(open_log(url)) as opened:
        yield opened


def rows(start: int, count: int) -> pa.RecordBatch:
    numbers = range(start, start + count)
    text = [None if n % 7 == 0 else f"é{n}" for n in numbers]
    return pa.record_batch({"n": pa.array(numbers, pa.int64()), "text": pa.array(text, pa.string())})


def numbers(frames: list[Frame]) -> list[int]:
    return [n for frame in frames for n in frame.batch["n"].to_pylist()]


def test_a_new_log_is_empty(log: Log) -> None:
    assert (log.end, list(log.read()), log.behind(0)) == (0, [], 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.tuples(st.sampled_from(["payments", "refunds"]), st.integers(0, 9)), max_size=9), data=st.data())
def test_it_reads_what_was_appended_from_any_number(make_url: Callable[[], str], sizes: list[tuple[str, int]], data: st.DataObject) -> None:
    url = make_url()
    with closing(open_log(url)) as log, closing(open_log(url)) as other:
        held: list[tuple[int, str, int]] = []
        for source, size in sizes:
            end = log.end
            first = log.append(source, rows(len(held), size))
            assert first == end
            held += [(first + row, source, len(held) + row) for row in range(size)]
        assert [number for number, _, _ in held] == sorted({number for number, _, _ in held})
        reader = data.draw(st.sampled_from([log, other]))
        for _ in range(3):
            offset = data.draw(st.sampled_from([0, log.end, *(number for number, _, _ in held)]))
            until = data.draw(st.sampled_from([None, log.end + 5, *(number for number, _, _ in held)]))
            frames = list(reader.read(offset, until))
            stop = log.end if until is None else until
            seen = [(frame.offset + row, frame.source, n) for frame in frames for row, n in enumerate(frame.batch["n"].to_pylist())]
            assert seen == [one for one in held if offset <= one[0] < stop]
            assert all(frame.batch.equals(rows(numbers([frame])[0], frame.batch.num_rows)) for frame in frames)
            if frames:
                rest = list(reader.read(frames[-1].end))
                assert numbers(frames) + numbers(rest) == [n for number, _, n in held if number >= offset]


def test_numbers_follow_on_where_the_log_counts_events(log: Log, url: str) -> None:
    firsts = [log.append("a", rows(start, 3)) for start in (0, 3, 6)]
    step = ROWS if url.startswith("kafka") else 3
    assert firsts == [0, step, 2 * step]
    assert log.behind(step) == (2 if url.startswith("kafka") else 6)
    assert [log.behind(frame.end) for frame in log.read()][-1] == 0


def test_a_read_ends_where_the_log_ended_when_it_was_asked(log: Log) -> None:
    log.append("a", rows(0, 3))
    asked = log.read()
    second = log.append("a", rows(3, 3))
    assert numbers(list(asked)) == [0, 1, 2]
    assert numbers(list(log.read(second))) == [3, 4, 5]


def test_two_reads_at_once_do_not_disturb_each_other(log: Log) -> None:
    for start in range(0, 30, 3):
        log.append("a", rows(start, 3))
    one, other = log.read(), log.read()
    next(one)
    assert numbers(list(other)) == list(range(30))
    assert numbers(list(one)) == list(range(3, 30))
    abandoned = log.read()
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]
    assert numbers(list(log.read())) == list(range(30))


def test_what_it_does_not_have_is_refused(log: Log) -> None:
    log.append("a", rows(0, 3))
    for offset in (-1, log.end + 1):
        with pytest.raises(StorageError, match="is outside 0 to"):
            log.read(offset)
    with pytest.raises(StorageError, match="not a usable name"):
        log.append("a/b", rows(0, 1))


def test_it_is_there_when_opened_again(url: str) -> None:
    for opened in range(3):
        with closing(open_log(url)) as log:
            assert numbers(list(log.read())) == list(range(3 * opened))
            log.append("a", rows(3 * opened, 3))


def test_a_batch_larger_than_a_message_comes_back_whole(log: Log) -> None:
    log.append("a", rows(0, 200_000))
    log.append("b", rows(200_000, 1))
    frames = list(log.read())
    assert numbers(frames) == list(range(200_001))
    middle = frames[0].offset + frames[0].batch.num_rows - 2
    assert numbers(list(log.read(middle)))[:2] == [frames[0].batch.num_rows - 2, frames[0].batch.num_rows - 1]


def _append_many(url: str, source: str, count: int) -> None:
    with closing(open_log(url)) as log:
        for i in range(count):
            log.append(source, rows(i * 3, 3))


def test_two_producers_lose_nothing_and_share_no_number(log: Log, url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_append_many, args=(url, source, 100)) for source in ("a", "b")]
    for worker in workers:
        worker.start()
    seen: list[Frame] = []
    while any(worker.is_alive() for worker in workers):
        seen += log.read(seen[-1].end if seen else 0)
        workers[0].join(0.02)
    assert [worker.exitcode for worker in workers] == [0, 0]
    seen += log.read(seen[-1].end if seen else 0)
    for source in ("a", "b"):
        assert numbers([frame for frame in seen if frame.source == source]) == list(range(300))
    offsets = [frame.offset for frame in seen]
    assert offsets == sorted(set(offsets))
    assert offsets == [frame.offset for frame in log.read()]


def test_what_is_derived_does_not_depend_on_the_log(log: Log, tmp_path: Path) -> None:
    paid = ms.Source("paid", {"n": int, "at": datetime, "card": int, "x": float}, event_time="at", event_id="n")
    card = paid.per("card")
    system = ms.System("s", "?", paid, [card.count(), card.sum("x")], ms.Label(paid, "x", on="n", matures_after="1d"), ms.LightGBM())

    def payments(first: int, count: int) -> pa.RecordBatch:
        numbers = np.arange(first, first + count)
        columns = {"n": numbers, "at": numbers, "card": numbers % 3, "x": numbers * 0.5}
        return pa.record_batch({**columns, "_event_id": numbers, "_event_time": numbers, "_known_time": numbers})

    with closing(open_key_value(f"lmdb:{tmp_path}/online")) as store:
        online, tables = OnlineStore(system, store), Tables(tmp_path / "tables")
        log.append("paid", payments(0, 10))
        second = log.append("paid", payments(10, 10))
        for until in (second + 4, None):
            online.apply(log, until)
            tables.catch_up(log, until)
            log.append("other", rows(0, 2))
            log.append("paid", payments(18, 5))
        online.apply(log)
        assert tables.catch_up(log) == online.offset == log.end
        counts = [online.read({"card": n}, 100).values for n in range(3)]
        assert counts == [[8, 42.0], [8, 46.0], [7, 38.5]]
        written = [n for file in tables.files("paid") for n in pq.read_table(file)["n"].to_pylist()]
        assert written == [*range(20), *range(18, 23), *range(18, 23)]


def test_a_damaged_entry_is_named_and_never_taken_for_data(url: str) -> None:
    with closing(open_log(url)) as log:
        log.append("a", rows(0, 3))
        second = log.append("a", rows(3, 3))
    damaged = damage(url, second)
    with closing(open_log(url)) as log:
        reader = log.read()
        assert numbers([next(reader)]) == [0, 1, 2]
        with pytest.raises(StorageError, match=rf"event {damaged}\b.*[Rr]estore"):
            list(reader)


def damage(url: str, second: int) -> int:
    """Change a byte of the entry at number ``second``; on Kafka, where no one can, add a message that is no frame. Its number."""
    if url.startswith("redis"):
        server, stream = url.split("#")
        with redis.Redis.from_url(server) as client:
            entries = client.xrange(stream)
            client.delete(stream)
            for name, fields in entries:
                frame = fields[b"frame"]
                last = frame[-1] ^ (not name.startswith(b"0-"))
                client.xadd(stream, {"frame": frame[:-1] + bytes([last])}, id=name)
        return second
    if url.startswith("kafka"):
        servers, topic = url.removeprefix("kafka://").split("/")
        producer = confluent_kafka.Producer({"bootstrap.servers": servers})
        producer.produce(topic, b"no frame at all", partition=0)
        assert producer.flush(5) == 0
        return second + ROWS
    segment = next(Path(url.removeprefix("file:")).glob("*.log"))
    data = segment.read_bytes()
    segment.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    return second
