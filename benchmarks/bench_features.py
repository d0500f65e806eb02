"""The feature store against what the machine allows: joins and windows beside plain DuckDB, the stream, reads of one key.

Each side of an offline measurement runs in a process of its own, which reports its time and its peak memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import QUICK, Bar, bar, write

import mainspring as ms
from mainspring.clock import DAY
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.storage.event_log import EventLog
from mainspring.storage.stores import open_key_value

FACTS, QUESTIONS, KEYS, ROUNDS = (1_000_000, 200_000, 10_000, 1) if QUICK else (10_000_000, 1_000_000, 10_000, 3)
STREAMED, READS = (40_000, 1_000) if QUICK else (400_000, 5_000)
YEAR = 365 * DAY
VALUES = [f"f{i}" for i in range(10)]

facts = ms.Source("facts", {"id": int, "at": datetime, "k": int, **dict.fromkeys(VALUES, float)}, event_time="at", event_id="id")
asked = ms.Source("asked", {"id": int, "asked_at": datetime, "k": int}, event_time="asked_at", event_id="id")
view = facts.per("k")
newest = [view.last(name) for name in VALUES]
windows = [fold for w in ("1h", "1d", "7d") for fold in (view.count(w), view.sum("f0", w), view.mean("f1", w), view.max("f2", w))]


def system(features: list[Any]) -> ms.System:
    return ms.System("bench", "?", asked, features, ms.Label(facts, "f0", on="id", matures_after="1d"), ms.LightGBM())


def make(folder: Path, count: int = FACTS, asked_for: int = QUESTIONS) -> None:
    """Facts of ten thousand keys spread over a year, and questions anywhere in it."""
    rng = np.random.default_rng(0)
    at, ids = np.sort(rng.integers(0, YEAR, count)), np.arange(count)
    envelope = {"_event_id": ids, "_event_time": at, "_known_time": at}
    columns = {"id": ids, "at": at, "k": rng.integers(0, KEYS, count), **{name: rng.normal(size=count) for name in VALUES}}
    pq.write_table(pa.table({**columns, **envelope}), folder / "facts.parquet")
    when = rng.integers(0, YEAR, asked_for)
    questions = {"id": np.arange(asked_for), "asked_at": when, "k": rng.integers(0, KEYS, asked_for), AS_OF: when}
    pq.write_table(pa.table(questions), folder / "questions.parquet")


def join_floor(folder: Path) -> float:
    """DuckDB's own ASOF join: no ties, no corrections."""
    questions = pq.read_table(folder / "questions.parquet")
    connection = duckdb.connect(config={"threads": 2, "memory_limit": "8GB"})
    connection.register("questions", questions)
    values = ", ".join(f"f.{name}" for name in VALUES)
    joined = connection.sql(
        f"SELECT q.*, {values} FROM questions q ASOF LEFT JOIN '{folder}/facts.parquet' f ON q.k = f.k AND q.{AS_OF} > f._event_time"
    ).to_arrow_table()
    return float(np.nansum(joined.column("f0").to_numpy()))


def ours(features: list[Any], memory: str = "8GB") -> Callable[[Path], float]:
    def side(folder: Path) -> float:
        store = OfflineStore(system(features), lambda _: [str(folder / "facts.parquet")], memory=memory)
        columns = store.features(pq.read_table(folder / "questions.parquet"))
        return float(np.nansum(columns[features[0].name]))

    return side


SIDES: dict[str, Callable[[Path], float]] = {
    "join floor": join_floor,
    "join": ours(newest),
    "join in 1 GiB": ours(newest, "1GB"),
    "windows": ours(windows),
}


def run_side(name: str, folder: Path) -> tuple[float, float, float]:
    """Seconds, peak GiB and sum of the answers of a side in a process of its own."""
    command = [sys.executable, __file__, name, str(folder)]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout)
    return measured["seconds"], measured["gib"], measured["checksum"]


def one_side(name: str, folder: Path) -> None:
    """What such a process does."""
    started = time.perf_counter()
    checksum = SIDES[name](folder)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "gib": peak, "checksum": checksum}))


def offline_bars(folder: Path) -> list[Bar]:
    make(folder)
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SIDES}
    for _ in range(ROUNDS):
        for name, results in measured.items():
            results.append(run_side(name, folder))
            print(f"{name}: {results[-1][0]:.1f} s, {results[-1][1]:.2f} GiB", file=sys.stderr)
    seconds, gib, sums = ({name: [one[i] for one in results] for name, results in measured.items()} for i in range(3))
    if not np.allclose(sums["join"] + sums["join in 1 GiB"], sums["join floor"][0]):
        raise SystemExit(f"The joins do not agree: {sums}")
    floor, floor_gib = float(np.median(seconds["join floor"])), float(np.median(gib["join floor"]))
    size = f"{FACTS // 10**6}M x {QUESTIONS // 1000}k"
    return [
        bar(f"join {size} x 10 features", "s", seconds["join"], floor=floor, bar=1.5 * floor),
        bar("  its memory", "GiB", gib["join"], floor=floor_gib, bar=1.5 * floor_gib),
        bar("  DuckDB held to 1 GiB", "s", seconds["join in 1 GiB"], floor=floor),
        bar(f"windows {size} x 3 windows x 4 aggregations", "s", seconds["windows"], bar=20.0),
        bar("  its memory", "GiB", gib["windows"], bar=3.0),
    ]


def online_bars(folder: Path) -> list[Bar]:
    """The stream into LMDB, an hour of facts at a time, and reads of twelve windows of one key."""
    rng = np.random.default_rng(1)
    at = np.sort(rng.integers(0, 7 * DAY, STREAMED))
    ids, keys = np.arange(STREAMED), rng.integers(0, KEYS // 10, STREAMED)
    columns = {"id": ids, "at": at, "k": keys, **{name: rng.normal(size=STREAMED) for name in VALUES}}
    table = pa.table({**columns, "_event_id": ids, "_event_time": at, "_known_time": at})
    rates = []
    for round_ in range(ROUNDS):
        log, store = EventLog(folder / f"log-{round_}", fsync=False), open_key_value(f"lmdb:{folder}/online-{round_}")
        for start in range(0, STREAMED, 2_500):
            log.append("facts", table.slice(start, 2_500).combine_chunks().to_batches()[0])
        online = OnlineStore(system(windows), store)
        started = time.perf_counter()
        online.apply(log)
        rates.append(STREAMED / (time.perf_counter() - started))
        reads = []
        for key in rng.integers(0, KEYS // 10, READS).tolist():
            started = time.perf_counter()
            online.read({"k": key}, 7 * DAY)
            reads.append((time.perf_counter() - started) * 1e6)
        store.close()
    p50, p99 = float(np.median(reads)), float(np.percentile(reads, 99))
    return [
        bar("stream into LMDB, one view, one process", "events/s", rates, bar=50_000.0, above=True),
        Bar("read of one key, 12 exact windows of 1 h, 1 d, 7 d, p50", p50, "us", (min(reads), p99)),
        Bar("  p99", p99, "us", (p50, max(reads)), bar=200.0),
    ]


def main() -> int:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        return write("features", offline_bars(Path(folder)) + online_bars(Path(folder)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one_side(sys.argv[1], Path(sys.argv[2]))
    else:
        sys.exit(main())
