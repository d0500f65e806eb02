"""The feature store against what the machine allows and beside Feast: joins, windows, the stream, reads, materialising.

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
from harness import QUICK, Bar, bar, peer, write
from online_features import online_bars

import mainspring as ms
from mainspring.clock import DAY
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.storage.event_log import EventLog
from mainspring.storage.stores import open_key_value

FACTS, QUESTIONS, KEYS, ROUNDS = (1_000_000, 200_000, 10_000, 1) if QUICK else (10_000_000, 1_000_000, 10_000, 3)
FEAST_FACTS = 200_000 if QUICK else 1_000_000
STREAMED, READS = (40_000, 1_000) if QUICK else (400_000, 5_000)
LIVE = 2_500
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


def few(folder: Path) -> float:
    """The join of as many facts as Feast is given."""
    store = OfflineStore(system(newest), lambda _: [str(folder / "few.parquet")], memory="8GB")
    return float(np.nansum(store.features(pq.read_table(folder / "questions.parquet"))[newest[0].name]))


SIDES: dict[str, Callable[[Path], float]] = {
    "join floor": join_floor,
    "join": ours(newest),
    "join in 1 GiB": ours(newest, "1GB"),
    "windows": ours(windows),
    "join of few": few,
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
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SIDES if name != "join of few"}
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


def feast_bars(folder: Path) -> list[Bar]:
    """The join beside Feast's DuckDB store, on fewer facts: with ten million it needs over 16 GiB."""
    facts_table = pq.read_table(folder / "facts.parquet").slice(0, FEAST_FACTS)
    questions = pq.read_table(folder / "questions.parquet")
    pq.write_table(facts_table, folder / "few.parquet")
    for table, instants, kept, name in ((facts_table, "at", ["k", *VALUES], "facts"), (questions, AS_OF, ["k"], "asked")):
        times = table.column(instants).cast(pa.timestamp("us", "UTC"))
        pq.write_table(table.select(kept).append_column("event_timestamp", times), folder / f"feast-{name}.parquet")
    command = [str(peer("feast")), str(Path(__file__).parent / "peers" / "feast_features.py"), "join", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    feast = json.loads(run.stdout.splitlines()[-1])
    own = [run_side("join of few", folder) for _ in range(ROUNDS)]
    print(f"Feast: {feast}, ours: {own}", file=sys.stderr)
    if not np.isclose(own[0][2], feast["checksum"], rtol=1e-6):
        raise SystemExit(f"The joins do not agree: {own[0][2]} and Feast's {feast['checksum']}")
    size = f"{FEAST_FACTS // 1000}k x {QUESTIONS // 1000}k"
    return [
        bar(f"join {size} beside Feast on DuckDB", "s", [one[0] for one in own], peer=feast["seconds"], bar=feast["seconds"] / 20),
        bar("  its memory", "GiB", [one[1] for one in own], peer=feast["gib"]),
    ]


def stream_bars(folder: Path) -> list[Bar]:
    """The stream into LMDB as it comes and as a backlog, and reads of twelve windows of one key."""
    rng = np.random.default_rng(1)
    at = np.sort(rng.integers(0, 7 * DAY, STREAMED))
    ids, keys = np.arange(STREAMED), rng.integers(0, KEYS // 10, STREAMED)
    columns = {"id": ids, "at": at, "k": keys, **{name: rng.normal(size=STREAMED) for name in VALUES}}
    table = pa.table({**columns, "_event_id": ids, "_event_time": at, "_known_time": at})
    batches = [table.slice(start, LIVE).combine_chunks().to_batches()[0] for start in range(0, STREAMED, LIVE)]
    live, backlog = [], []
    for round_ in range(ROUNDS):
        log = EventLog(folder / f"log-{round_}", fsync=False)
        stores = [open_key_value(f"lmdb:{folder}/{kind}-{round_}") for kind in ("live", "backlog")]
        online, late = (OnlineStore(system(windows), store) for store in stores)
        seconds = 0.0
        for batch in batches:
            log.append("facts", batch)
            started = time.perf_counter()
            online.apply(log)
            seconds += time.perf_counter() - started
        live.append(STREAMED / seconds)
        started = time.perf_counter()
        late.apply(log)
        backlog.append(STREAMED / (time.perf_counter() - started))
        reads = []
        for key in rng.integers(0, KEYS // 10, READS).tolist():
            started = time.perf_counter()
            online.read({"k": key}, 7 * DAY)
            reads.append((time.perf_counter() - started) * 1e6)
        many = []
        for _ in range(READS // 100):
            asked_keys = rng.integers(0, KEYS // 10, 500)
            started = time.perf_counter()
            online.read_many({"k": asked_keys}, np.full(500, 7 * DAY))
            many.append((time.perf_counter() - started) * 1e3)
        for store in stores:
            store.close()
    p50, p99 = float(np.median(reads)), float(np.percentile(reads, 99))
    return [
        bar(f"stream into LMDB, one view, one process, {LIVE} events a transaction", "events/s", live, bar=50_000.0, above=True),
        bar("  catching up", "events/s", backlog),
        Bar("read of one key, 12 exact windows of 1 h, 1 d, 7 d, p50", p50, "us", (min(reads), p99)),
        Bar("  p99", p99, "us", (p50, max(reads)), bar=200.0),
        Bar("  of 500 keys at once, p50", float(np.median(many)), "ms", (min(many), max(many)), floor=0.5 * p50),
    ]


def main() -> int:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return write("features", [*offline_bars(folder), *feast_bars(folder), *stream_bars(folder), *online_bars(folder)])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one_side(sys.argv[1], Path(sys.argv[2]))
    else:
        sys.exit(main())
