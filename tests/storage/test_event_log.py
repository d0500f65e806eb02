from __future__ import annotations

import multiprocessing
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.errors import StorageError
from mainspring.storage.event_log import EventLog, Frame

Child = Callable[..., subprocess.Popen[str]]


def rows(start: int, count: int) -> pa.RecordBatch:
    numbers = range(start, start + count)
    text = [None if n % 7 == 0 else f"é{n}" for n in numbers]
    return pa.record_batch({"n": pa.array(numbers, pa.int64()), "text": pa.array(text, pa.string())})


def numbers(frames: list[Frame]) -> list[int]:
    return [n for frame in frames for n in frame.batch["n"].to_pylist()]


def last_segment(path: Path) -> Path:
    return max(path.glob("*.log"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.sampled_from(["payments", "refunds"]), st.integers(0, 30)), max_size=12),
    segment_bytes=st.sampled_from([1, 2_000, 64 << 20]),
    data=st.data(),
)
def test_reads_what_was_appended_from_any_offset(tmp_path_factory, sizes, segment_bytes, data) -> None:
    path = tmp_path_factory.mktemp("log")
    log = EventLog(path, segment_bytes=segment_bytes, fsync=False)
    sources: list[str] = []
    for source, size in sizes:
        assert log.append(source, rows(len(sources), size)) == len(sources)
        sources += [source] * size
    total = len(sources)
    reader = data.draw(st.sampled_from([log, EventLog(path)]))
    for _ in range(3):
        offset = data.draw(st.integers(0, total))
        until = data.draw(st.one_of(st.none(), st.integers(0, total + 5)))
        frames = list(reader.read(offset, until))
        assert numbers(frames) == list(range(offset, total if until is None else min(until, total)))
        assert [f.source for f in frames for _ in range(f.batch.num_rows)] == sources[offset : offset + len(numbers(frames))]
        for frame in frames:
            assert frame.batch.equals(rows(frame.offset, frame.end - frame.offset))
    assert reader.end == total


def test_a_read_ends_where_the_log_ended_when_it_was_asked(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync=False)
    log.append("a", rows(0, 3))
    asked = log.read()
    log.append("a", rows(3, 3))
    assert numbers(list(asked)) == [0, 1, 2]
    assert numbers(list(log.read(3))) == [3, 4, 5]


def test_dictionary_columns_and_slices_survive(tmp_path: Path) -> None:
    batch = pa.record_batch({"n": [1, 2, 3, 4], "color": pa.array(["red", "blue", "red", None]).dictionary_encode()}).slice(1, 2)
    log = EventLog(tmp_path, fsync=False)
    log.append("a", batch)
    [frame] = log.read()
    assert frame.batch.equals(batch)


def test_an_offset_outside_the_log_is_refused(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync=False)
    log.append("a", rows(0, 3))
    assert list(log.read(3)) == []
    for offset in (-1, 4):
        with pytest.raises(StorageError, match="outside 0 to 3"):
            log.read(offset)
    with pytest.raises(StorageError, match="not a usable name"):
        log.append("a/b", rows(0, 1))


def test_half_a_frame_at_the_end_is_ignored_by_readers_and_cut_by_the_next_to_open(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync=False)
    log.append("a", rows(0, 2))
    reader = EventLog(tmp_path)
    segment = last_segment(tmp_path)
    first = segment.stat().st_size
    log.append("a", rows(2, 2))
    whole = segment.read_bytes()
    for cut in range(first, len(whole)):
        segment.write_bytes(whole[:cut])
        assert reader.end == 2
        assert numbers(list(reader.read())) == [0, 1]
        opened = EventLog(tmp_path, fsync=False)
        assert (opened.end, opened.healed, segment.stat().st_size) == (2, cut - first, first)
        assert opened.append("b", rows(2, 1)) == 2
        assert numbers(list(opened.read())) == [0, 1, 2]


def test_an_append_cuts_what_another_writer_left_torn(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync=False)
    log.append("a", rows(0, 2))
    with last_segment(tmp_path).open("ab") as file:
        file.write(b"MSE1 half a fra")
    assert log.append("a", rows(2, 2)) == 2
    assert log.healed == 15
    assert numbers(list(EventLog(tmp_path).read())) == [0, 1, 2, 3]


def test_zeros_after_a_power_cut_are_a_torn_tail(tmp_path: Path) -> None:
    EventLog(tmp_path, fsync=False).append("a", rows(0, 2))
    with last_segment(tmp_path).open("ab") as file:
        file.write(bytes(5_000))
    log = EventLog(tmp_path)
    assert (log.end, log.healed) == (2, 5_000)


def test_a_flipped_byte_is_never_taken_for_data_nor_for_a_torn_tail(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync=False)
    for start in (0, 2):
        log.append("a", rows(start, 2))
    segment = last_segment(tmp_path)
    whole = segment.read_bytes()
    for place in range(0, len(whole), 3):
        segment.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(StorageError, match=r"0\.log, byte \d+, event \d.*[Rr]estore"):
            list(EventLog(tmp_path).read())
        assert segment.stat().st_size == len(whole)


def test_damage_in_an_earlier_segment_names_the_place(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync=False, segment_bytes=1)
    for start in (0, 2, 4):
        log.append("a", rows(start, 2))
    segments = sorted(tmp_path.glob("*.log"))
    assert [int(segment.stem) for segment in segments] == [0, 2, 4]
    whole = segments[1].read_bytes()
    for damaged in (whole[:-1], whole[:10], b"", whole + b"x"):
        segments[1].write_bytes(damaged)
        fresh = EventLog(tmp_path)
        assert numbers(list(fresh.read(4))) == [4, 5]
        with pytest.raises(StorageError, match=rf"{segments[1].name}, byte \d+"):
            list(fresh.read())
    segments[1].unlink()
    with pytest.raises(StorageError, match="too early"):
        list(EventLog(tmp_path).read())


def _append_many(path: Path, source: str, count: int) -> None:
    log = EventLog(path, fsync=False, segment_bytes=30_000)
    for i in range(count):
        log.append(source, rows(i * 3, 3))


def test_two_processes_append_without_loss_or_overlap(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    reader = EventLog(tmp_path)
    workers = [spawn.Process(target=_append_many, args=(tmp_path, source, 200)) for source in ("a", "b")]
    for worker in workers:
        worker.start()
    seen: list[Frame] = []
    while any(worker.is_alive() for worker in workers):
        seen += reader.read(seen[-1].end if seen else 0)
        workers[0].join(0.01)
    assert [worker.exitcode for worker in workers] == [0, 0]
    seen += reader.read(seen[-1].end if seen else 0)
    for source in ("a", "b"):
        assert numbers([frame for frame in seen if frame.source == source]) == list(range(600))
    assert [frame.offset for frame in seen] == list(range(0, 1200, 3))
    assert len(list(tmp_path.glob("*.log"))) > 3


def test_threads_append_and_read_one_log(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync=False, segment_bytes=20_000)

    def append(source: str) -> None:
        for i in range(150):
            log.append(source, rows(i * 2, 2))

    threads = [threading.Thread(target=append, args=(source,)) for source in ("a", "b")]
    for thread in threads:
        thread.start()
    seen: list[Frame] = []
    while any(thread.is_alive() for thread in threads):
        seen += log.read(seen[-1].end if seen else 0)
    seen += log.read(seen[-1].end if seen else 0)
    for source in ("a", "b"):
        assert numbers([frame for frame in seen if frame.source == source]) == list(range(300))
    assert (log.end, log.healed) == (600, 0)


KILLED = """
import sys
from pathlib import Path
import pyarrow as pa
from mainspring.storage.event_log import EventLog

log = EventLog(Path(sys.argv[1]), fsync=False, segment_bytes=200_000)
while True:
    start = log.end
    log.append("a", pa.record_batch({"n": range(start, start + 500)}))
    print(log.end, flush=True)
"""


def test_every_acknowledged_event_survives_a_kill(tmp_path: Path, child: Child) -> None:
    acknowledged = 0
    for wait in (5, 60, 150):
        with child(KILLED, tmp_path) as process:
            assert process.stdout is not None
            for _ in range(wait):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                acknowledged = int(line) if line.endswith("\n") else acknowledged
        log = EventLog(tmp_path)
        assert log.end >= acknowledged
        assert numbers(list(log.read())) == list(range(log.end))


FULL = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from mainspring.errors import StorageError
from mainspring.storage.event_log import EventLog

log = EventLog(Path(sys.argv[1]), fsync=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    while True:
        log.append("a", pa.record_batch({"n": range(log.end, log.end + 1000)}))
except StorageError as error:
    print(error)
before = log.end
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(before, log.append("a", pa.record_batch({"n": range(log.end, log.end + 1000)})), log.healed)
"""


def test_a_full_disk_refuses_the_append_and_leaves_the_log_whole(tmp_path: Path, child: Child) -> None:
    with child(FULL, tmp_path) as process:
        output, _ = process.communicate()
    message, figures = output.splitlines()
    assert "1000 events of 'a' were not appended" in message
    before, offset, healed = map(int, figures.split())
    assert before == offset > 0
    assert healed == 0
    log = EventLog(tmp_path)
    assert (log.end, log.healed) == (before + 1000, 0)
    assert numbers(list(log.read())) == list(range(log.end))


def test_a_log_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Make the folder writable"):
        EventLog(tmp_path / "file" / "log")


def erase_some(log: EventLog, gone: set[int]) -> int:
    return log.erase(lambda _, batch: np.isin(batch.column("n").to_numpy(), list(gone)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    segment_bytes=st.sampled_from([1, 4_000, 64 << 20]),
    gone=st.lists(st.sets(st.integers(0, 250)), min_size=1, max_size=3),
    data=st.data(),
)
def test_erased_events_are_gone_and_every_other_keeps_its_number(tmp_path_factory, sizes, segment_bytes, gone, data) -> None:
    path = tmp_path_factory.mktemp("log")
    log = EventLog(path, segment_bytes=segment_bytes, fsync=False)
    total = sum(sizes)
    for i, size in enumerate(sizes):
        log.append("a", rows(sum(sizes[:i]), size))
    reader = EventLog(path)
    [*reader.read(data.draw(st.integers(0, total)))]
    held: set[int] = set()
    for part in gone:
        some = {n for n in part if n < total} - held
        assert erase_some(log, part) == len(some)
        held |= some
    for one in (log, reader, EventLog(path)):
        begin = data.draw(st.integers(0, total))
        end = data.draw(st.integers(begin, total))
        frames = list(one.read(begin, end))
        assert numbers(frames) == [n for n in range(begin, end) if n not in held]
        for frame in frames:
            assert frame.batch.equals(rows(frame.offset, len(frame.batch)))
        assert [frame.offset for frame in frames[1:]] == [frame.end for frame in frames[:-1]]
        assert not frames or (frames[0].offset, frames[-1].end) == (begin, end)
    assert reader.append("a", rows(total, 2)) == total
    assert numbers(list(log.read(total))) == [total, total + 1]
    assert erase_some(log, held) == 0


def test_the_bytes_of_erased_events_are_gone(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync=False)
    secret = pa.array(["open", "a-very-long-secret", "open"])
    log.append("a", pa.record_batch({"n": [0, 1, 2], "text": secret, "kind": secret.dictionary_encode()}))
    log.append(
        "a", pa.record_batch({"n": [3], "text": ["a-very-long-secret"], "kind": pa.array(["a-very-long-secret"]).dictionary_encode()})
    )
    size = last_segment(tmp_path).stat().st_size
    assert erase_some(log, {1, 3}) == 2
    assert b"secret" not in last_segment(tmp_path).read_bytes()
    assert last_segment(tmp_path).stat().st_size == size
    assert [(frame.offset, frame.end) for frame in log.read()] == [(0, 2), (2, 3), (3, 4)]
    assert [frame.batch["kind"].to_pylist() for frame in log.read()] == [["open"], ["open"], []]


def test_an_erasure_that_is_killed_is_finished_by_the_next(tmp_path: Path, child: Child) -> None:
    log = EventLog(tmp_path, segment_bytes=20_000, fsync=False)
    for start in range(0, 30_000, 100):
        log.append("a", rows(start, 100))
    killed = 0
    for wait in (0.0, 0.02, 0.05, 0.1):
        with child(ERASING, tmp_path) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        left = numbers(list(EventLog(tmp_path).read()))
        assert set(range(30_000)) - set(left) <= set(range(0, 30_000, 3))
    assert killed
    erase_some(log, set(range(0, 30_000, 3)))
    assert numbers(list(EventLog(tmp_path).read())) == [n for n in range(30_000) if n % 3]
    assert not list(tmp_path.glob("*.tmp"))


def test_appends_and_reads_go_on_while_events_are_erased(tmp_path: Path) -> None:
    log = EventLog(tmp_path, segment_bytes=5_000, fsync=False)
    for start in range(0, 10_000, 100):
        log.append("a", rows(start, 100))
    stop = threading.Event()
    problems: list[str] = []

    def append_and_read() -> None:
        own, start, offset = EventLog(tmp_path, segment_bytes=5_000, fsync=False), 10_000, 0
        while not stop.is_set():
            own.append("a", rows(start, 10))
            start += 10
            for frame in own.read(offset):
                if frame.offset != offset:
                    problems.append(f"{frame.offset} after {offset}")
                offset = frame.end

    thread = threading.Thread(target=append_and_read)
    thread.start()
    for part in range(5):
        erase_some(log, set(range(part, 10_000, 5)))
    stop.set()
    thread.join()
    assert problems == []
    assert min(numbers(list(log.read()))) == 10_000


ERASING = """
import sys
from pathlib import Path
from mainspring.storage.event_log import EventLog
log = EventLog(Path(sys.argv[1]))
print("ready", flush=True)
log.erase(lambda _, batch: batch.column("n").to_numpy() % 3 == 0)
"""
