"""Late and repeated events, and a stream killed again and again: in the end the online store says what the offline store says."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from mainspring.clock import DAY, HOUR, MINUTE, SECOND, SystemClock
from mainspring.columns import to_values
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.workers import Job, Workers
from mainspring.storage.event_log import EventLog
from mainspring.storage.log import Log
from mainspring.storage.stores import open_key_value, open_log

SPAN, FRAME = 4 * DAY, 2_500
events = ms.Source(
    "events",
    {"id": int, "at": datetime, "known": datetime, "key": int, "x": float, "kind": str},
    event_time="at",
    event_id="id",
    known_time="known",
)
asked = ms.Source("asked", {"id": int, "asked_at": datetime, "key": int}, event_time="asked_at", event_id="id")
view = events.per("key")
features = [
    *(fold for w in ("1h", "1d") for fold in (view.count(w), view.sum("x", w), view.mean("x", w), view.max("x", w))),
    *(view.last("x"), view.distinct("kind", "1d"), view.stddev("x", "1d"), view.last_k("x", 3, "1h"), view.ewma("x", "1h", "1d")),
]
lists = [feature.name for feature in features if feature.name.startswith("key__x_last_k")]
system = ms.System("stream", "?", asked, features, ms.Label(events, "x", on="id", matures_after="1d"), ms.LightGBM(ignore=lists))


def make(folder: Path, log: Log, count: int, keys: int) -> None:
    """Events in order of when they were known: 5 % of them up to twelve hours late, 1 % sent again within the hour."""
    rng = np.random.default_rng(0)
    at = rng.integers(0, SPAN, count)
    known = at + np.where(rng.random(count) < 0.05, rng.integers(0, 12 * HOUR, count), 0)
    columns = {"id": np.arange(count), "at": at, "known": known, "key": rng.integers(0, keys, count), "x": rng.normal(size=count)}
    again = rng.choice(count, count // 100, replace=False)
    arrived = np.concatenate([known, known[again] + rng.integers(1, HOUR, len(again))])
    order = np.argsort(arrived, kind="stable")
    rows = np.concatenate([np.arange(count), again])[order]
    table = pa.table({name: values[rows] for name, values in columns.items()})
    table = table.append_column("kind", pa.array(np.array(["a", "b", "c"])[rows % 3]))
    for name, source in (("_event_id", "id"), ("_event_time", "at"), ("_known_time", "known")):
        table = table.append_column(name, table.column(source))
    pq.write_table(table, folder / "events.parquet")
    for batch in table.to_batches(max_chunksize=FRAME):
        log.append("events", batch)


def stream(folder: Path) -> None:
    """What the killed process does."""
    OnlineStore(system, open_key_value(f"lmdb:{folder}/online")).apply(EventLog(folder / "log"))


@pytest.mark.parametrize(
    ("count", "keys", "kills"), [(60_000, 300, 3), pytest.param(1_000_000, 2_000, 20, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_a_stream_killed_anywhere_ends_where_the_offline_store_does(tmp_path: Path, count: int, keys: int, kills: int) -> None:
    make(tmp_path, EventLog(tmp_path / "log", fsync=False), count, keys)
    dice, killed = random.Random(1), 0
    for _ in range(kills):
        with subprocess.Popen([sys.executable, __file__, str(tmp_path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"begins\n"
            time.sleep(dice.uniform(0.0, 0.3))
            child.send_signal(signal.SIGKILL)
        killed += child.returncode == -signal.SIGKILL
    stream(tmp_path)
    assert killed >= 1
    with closing(open_key_value(f"lmdb:{tmp_path}/online")) as store:
        online = OnlineStore(system, store)
        assert online.offset == EventLog(tmp_path / "log").end == count + count // 100
        assert_same(tmp_path, online, keys)


def assert_same(folder: Path, online: OnlineStore, keys: int) -> None:
    """Every key's answers online are those of the offline store."""
    end = SPAN - MINUTE
    questions = pa.table({"id": np.arange(keys), "asked_at": np.full(keys, end), "key": np.arange(keys), AS_OF: np.full(keys, end)})
    built = OfflineStore(system, lambda _: [str(folder / "events.parquet")]).features(questions)
    served = online.read_many({"key": range(keys)}, [end] * keys).values
    for name in online.names:
        assert to_values(served[name]) == to_values(built[name]), name


@pytest.mark.parametrize(
    ("count", "keys", "kills"), [(60_000, 300, 3), pytest.param(500_000, 2_000, 20, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_workers_killed_anywhere_end_where_the_offline_store_does(
    tmp_path: Path, redis_url: str, count: int, keys: int, kills: int
) -> None:
    name, dice, killed = os.urandom(4).hex(), random.Random(1), 0
    job = Job(system.to_json(), f"{redis_url}#{name}", f"{redis_url}?shards=2#{name}", tmp_path / "dead", rows=100, poll_seconds=0.01)
    with closing(open_log(job.log)) as log:
        make(tmp_path, log, count, keys)
    with Workers(job, SystemClock(), longest_wait_us=SECOND // 2) as workers:
        next_kill = 0.0
        while any(state.progress.lag != 0 for state in workers.watch()):
            busy = [state.pid for state in workers.states if state.pid is not None and state.progress.lag and state.progress.events]
            if busy and killed < kills and time.monotonic() > next_kill:
                os.kill(dice.choice(busy), signal.SIGKILL)
                killed += 1
                next_kill = time.monotonic() + dice.uniform(0.1, 0.6)
            time.sleep(0.02)
        restarts = sum(state.restarts for state in workers.states)
    assert restarts == killed >= max(1, kills // 2)
    with closing(open_key_value(job.online)) as store:
        online = OnlineStore(system, store)
        assert [share.offset for share in online.writers] == [count + count // 100] * 2
        assert_same(tmp_path, online, keys)


if __name__ == "__main__":
    print("begins", flush=True)
    stream(Path(sys.argv[1]))
