"""Features on Spark beside the embedded engine on the same machine: what it costs to be able to go beyond one.

Spark reads questions and facts as Parquet and leaves the answers with its workers, two of them in one Java process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
from bench_features import make, newest, system, windows
from harness import QUICK, Bar, bar, interleaved, write

from mainspring.feature_store.adapters.spark import SparkOfflineStore, local_session
from mainspring.feature_store.offline import OfflineStore

ROWS, ROUNDS, BUCKETS = (200_000, 1, 8) if QUICK else (1_000_000, 3, 8)
FEATURES = {"join of 10 newest": newest, "windows, 3 x 4 aggregations": windows}


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def feature_bars(session: Any, folder: Path, name: str) -> list[Bar]:
    """Both engines on the same questions, held against each other to the bit before they are timed."""
    files = [str(folder / "facts.parquet")]
    declared = system(FEATURES[name])
    spark, embedded = SparkOfflineStore(declared, session, lambda _: files, buckets=BUCKETS), OfflineStore(declared, lambda _: files)
    questions = pq.read_table(folder / "questions.parquet")
    got, want = spark.features(questions), embedded.features(questions)
    if any(got[column].tobytes() != want[column].tobytes() for column in want):
        raise SystemExit(f"The answers of '{name}' differ.")

    def on_spark() -> None:
        frame = spark.frame(session.read.parquet(str(folder / "questions.parquet")))
        frame.write.format("noop").mode("overwrite").save()

    sides = {
        "spark": lambda: timed(on_spark),
        "spark, by way of the driver": lambda: timed(lambda: spark.features(questions)),
        "embedded": lambda: timed(lambda: embedded.features(pq.read_table(folder / "questions.parquet"))),
    }
    seconds = interleaved(ROUNDS, sides)
    floor = median(seconds["embedded"])
    return [
        bar(f"{name}, {ROWS / 1e6:g}M facts x {ROWS / 1e6:g}M questions", "s", seconds["spark"], floor=floor, bar=10 * floor),
        bar("  questions and answers through the driver", "s", seconds["spark, by way of the driver"], floor=floor),
        bar("  embedded engine, two threads", "s", seconds["embedded"]),
    ]


def main() -> int:
    """All of it."""
    started = time.perf_counter()
    session = local_session(2, shuffle_partitions=BUCKETS, memory="4g")
    bars = [bar("a session of Spark, local[2]", "s", [time.perf_counter() - started])]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), ROWS, ROWS)
        for name in FEATURES:
            bars += feature_bars(session, Path(folder), name)
            print(f"{name}: done", file=sys.stderr)
    session.stop()
    return write("spark", bars)


if __name__ == "__main__":
    sys.exit(main())
