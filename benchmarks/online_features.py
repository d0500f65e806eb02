"""The online half of the feature benchmark: reads and materialising beside packed rows of our own making and beside Feast."""

from __future__ import annotations

import json
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import lmdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from harness import QUICK, Bar, bar, peer
from processes import redis_server

import mainspring as ms
from mainspring.clock import DAY
from mainspring.feature_store.online import OnlineStore
from mainspring.storage.event_log import EventLog
from mainspring.storage.key_value import KeyValue
from mainspring.storage.stores import open_key_value

KEYS, ROUNDS, READS = (20_000, 1, 100) if QUICK else (300_000, 3, 300)
SIZES = (1, 100, 500)
VALUES = [f"f{i}" for i in range(10)]
NOW = 2 * DAY

facts = ms.Source("facts", {"id": int, "at": datetime, "k": int, **dict.fromkeys(VALUES, float)}, event_time="at", event_id="id")
asked = ms.Source("asked", {"id": int, "asked_at": datetime, "k": int}, event_time="asked_at", event_id="id")
Read = Callable[[list[int]], Any]
_pack_key = msgspec.msgpack.Encoder().encode
_packed = struct.Struct("<10d")


def system(views: int = 1) -> ms.System:
    """Ten newest values, of one view or of several."""
    features = [facts.per("k", name=f"v{i % views}").last(name) for i, name in enumerate(VALUES)]
    return ms.System("bench", "?", asked, features, ms.Label(facts, "f0", on="id", matures_after="1d"), ms.LightGBM())


def latest() -> pa.Table:
    """One fact of each key, in no order, within a day."""
    rng = np.random.default_rng(0)
    at, ids = np.sort(rng.integers(0, DAY, KEYS)), np.arange(KEYS)
    columns = {"id": ids, "at": at, "k": rng.permutation(KEYS), **{name: rng.normal(size=KEYS) for name in VALUES}}
    return pa.table({**columns, "_event_id": ids, "_event_time": at, "_known_time": at})


class Floor(Protocol):
    """A plain store of rows, and a read of it."""

    def fill(self, table: pa.Table) -> None: ...

    def read(self, keys: list[int]) -> Any: ...


class PackedLmdb:
    """The floor: ten doubles under each key, unpacked row by row into one array."""

    def __init__(self, folder: Path) -> None:
        self._environment: Any = lmdb.open(str(folder), map_size=1 << 30, sync=False, max_spare_txns=16)

    def fill(self, table: pa.Table) -> None:
        keys, values = table.column("k").to_pylist(), np.column_stack([table.column(name) for name in VALUES])
        with self._environment.begin(write=True) as transaction:
            for key, row in zip(keys, values, strict=True):
                transaction.put(_pack_key((key,)), row.tobytes())

    def read(self, keys: list[int]) -> Any:
        with self._environment.begin() as transaction:
            get = transaction.get
            return np.array([_packed.unpack(get(_pack_key((key,)))) for key in keys])


class PackedRedis:
    """The same on a server, by ``MSET`` and ``MGET``."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._client = redis.Redis(host=host, port=int(port), db=1)

    def fill(self, table: pa.Table) -> None:
        keys, values = table.column("k").to_pylist(), np.column_stack([table.column(name) for name in VALUES])
        for start in range(0, len(keys), 10_000):
            part = zip(keys[start : start + 10_000], values[start : start + 10_000], strict=True)
            self._client.mset({_pack_key((key,)): row.tobytes() for key, row in part})

    def read(self, keys: list[int]) -> Any:
        rows: Any = self._client.mget([_pack_key((key,)) for key in keys])
        return np.array([_packed.unpack(row) for row in rows])


def online_bars(folder: Path) -> list[Bar]:
    """Everything online but windows."""
    table = latest()
    log = EventLog(folder / "latest", fsync=False)
    for start in range(0, KEYS, 50_000):
        log.append("facts", table.slice(start, 50_000).combine_chunks().to_batches()[0])
    instants = table.column("at").cast(pa.timestamp("us", "UTC"))
    feast_table = table.select(["k", *VALUES]).append_column("event_timestamp", instants)
    pq.write_table(feast_table.slice(0, min(KEYS, 50_000)), folder / "feast-latest.parquet")
    with redis_server() as address:
        embedded = _materialise("LMDB", log, table, lambda i: f"lmdb:{folder}/on{i}", lambda i: PackedLmdb(folder / f"floor{i}"), 300_000.0)
        url, packed = f"redis://{address}/0", PackedRedis(address)
        served = _materialise("Redis", log, table, lambda i: f"{url}#bench{i}", lambda _: packed, 150_000.0)
        stores = [open_key_value(one) for one in (f"lmdb:{folder}/on0", f"{url}#bench0")]
        local = _reads("LMDB", stores[0], _filled(PackedLmdb(folder / "read"), table), (100,))
        remote = _reads("Redis", stores[1], packed.read, SIZES)
        p50s = {size: one.value for size, one in zip(SIZES, remote[::2], strict=True)}
        beside = _beside_feast(folder, address, p50s, served[0].value, table.slice(0, 100))
        views = _ten_views(stores[1], log, address)
        second = _second_store(stores[0], folder, log)
    return [*embedded, *served, *local, *remote, *beside, *views, second]


def _filled(floor: Floor, table: pa.Table) -> Read:
    floor.fill(table)
    return floor.read


def _materialise(
    name: str, log: EventLog, table: pa.Table, url: Callable[[int], str], floor: Callable[[int], Floor], bound: float
) -> list[Bar]:
    ours, floors = [], []
    for round_ in range(ROUNDS):
        store = open_key_value(url(round_))
        ours.append(KEYS / _seconds(partial(OnlineStore(system(), store).apply, log)))
        floors.append(KEYS / _seconds(partial(floor(round_).fill, table)))
        store.close()
    return [bar(f"materialise into {name}", "rows/s", ours, floor=statistics.median(floors), bar=bound, above=True)]


def _reads(name: str, store: KeyValue, floor: Read, judged: Sequence[int]) -> list[Bar]:
    """p50 beside the floor and p99, per number of keys; the answers are compared first."""
    online = OnlineStore(system(), store)

    def ours(keys: list[int]) -> Any:
        if len(keys) == 1:
            return online.read({"k": keys[0]}, NOW)
        return online.read_many({"k": keys}, np.full(len(keys), NOW))

    sample = list(range(100))
    answers = online.read_many({"k": sample}, np.full(100, NOW)).values
    if not np.array_equal(np.column_stack(list(answers.values())), floor(sample)):
        raise SystemExit(f"{name}: the reads do not agree")
    bars = []
    for size in SIZES:
        times = _alternate([ours, floor], size)
        (p50, p99), (floor_p50, _) = ([float(np.percentile(one, q)) for q in (50, 99)] for one in times)
        keys = f"{size} key{'s' * (size > 1)}"
        bound = 1.5 * floor_p50 if size in judged else None
        bars.append(Bar(f"{name}, {keys}: p50", p50, "ms", (min(times[0]), p99), floor=floor_p50, bar=bound))
        bars.append(Bar("  p99", p99, "ms", (p50, max(times[0])), bar=3 * p50))
    return bars


def _beside_feast(folder: Path, address: str, ours: dict[int, float], materialised: float, first: pa.Table) -> list[Bar]:
    command = [str(peer("feast")), str(Path(__file__).parent / "peers" / "feast_features.py"), "online", str(folder), address]
    run = subprocess.run([*command, *map(str, SIZES)], capture_output=True, text=True, check=True)
    feast = json.loads(run.stdout.splitlines()[-1])
    if not np.isclose(feast["checksum"], first.column("f0").to_numpy().sum()):
        raise SystemExit("Feast's online reads do not agree with what was written")
    bars = [
        Bar(
            f"Redis, {size} keys beside Feast: p50",
            ours[size],
            "ms",
            (ours[size],) * 2,
            peer=feast[str(size)][0],
            bar=feast[str(size)][0] / 4,
        )
        for size in SIZES[1:]
    ]
    return [*bars, Bar("materialise into Redis beside Feast", materialised, "rows/s", (materialised,) * 2, peer=feast["materialise"])]


def _ten_views(store: KeyValue, log: EventLog, address: str) -> list[Bar]:
    online = OnlineStore(system(10), store)
    online.apply(log)
    host, port = address.split(":")
    client = redis.Redis(host=host, port=int(port))

    def commands() -> int:
        info: Any = client.info("commandstats")
        return sum(int(one["calls"]) for name, one in info.items() if name != "cmdstat_info")

    before = commands()
    online.read({"k": 1}, NOW)
    return [Bar("round trips to Redis for ten views", float(commands() - before), "", (1.0, 1.0), bar=1.0)]


def _second_store(store: KeyValue, folder: Path, log: EventLog) -> Bar:
    """How much slower a hundred keys are read while the process holds, and has just used, another store."""
    online = OnlineStore(system(), store)
    other_kept = open_key_value(f"lmdb:{folder}/second")
    other = OnlineStore(system(2), other_kept)
    keys = np.random.default_rng(3).integers(0, KEYS, 100).tolist()

    def read(of: OnlineStore) -> float:
        return _seconds(lambda: of.read_many({"k": keys}, np.full(100, NOW)))

    alone = [read(online) for _ in range(READS * 3)]
    other.apply(log)
    read(other)
    beside = [read(online) for _ in range(READS * 3)]
    other_kept.close()
    ratio = statistics.median(beside) / statistics.median(alone)
    return Bar("a hundred keys with a second store in the process, to without", ratio, "x", (ratio, ratio), bar=1.1)


def _alternate(sides: Sequence[Read], size: int) -> list[list[float]]:
    """Milliseconds of each side, which take turns on the same keys."""
    rng = np.random.default_rng(size)
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(READS * 3):
        keys = rng.integers(0, KEYS, size).tolist()
        for i, side in enumerate(sides):
            times[i].append(_seconds(partial(side, keys)) * 1e3)
    return times


def _seconds(act: Callable[[], Any]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit("Run bench_features.py")
