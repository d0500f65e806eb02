"""A streaming query that fails or is killed between the store's commit and Spark's, and one whose numbers cannot be right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from mainspring.clock import DAY, HOUR
from mainspring.columns import to_values
from mainspring.feature_store.adapters.spark import local_session
from mainspring.feature_store.adapters.spark_stream import OnlineSink
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.storage.key_value import KeyValue
from mainspring.storage.stores import open_key_value

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:PySpark does not yet:FutureWarning")]

FILES, ROWS, KEYS, END = 6, 500, 40, 4 * DAY
SCHEMA = "id long, at long, known long, key long, x double, kind string, _event_id long, _event_time long, _known_time long"
events = ms.Source(
    "events",
    {"id": int, "at": datetime, "known": datetime, "key": int, "x": float | None, "kind": str},
    event_time="at",
    event_id="id",
    known_time="known",
)
asked = ms.Source("asked", {"id": int, "asked_at": datetime, "key": int}, event_time="asked_at", event_id="id")
view = events.per("key")
features = [view.count(), view.sum("id"), view.mean("x", "1d"), view.max("x", "1h"), view.last("x"), view.distinct("kind", "1d")]
system = ms.System("stream", "?", asked, features, ms.Label(events, "x", on="id", matures_after="1d"), ms.LightGBM())


def make(folder: Path) -> None:
    """Files of events, a twentieth of them late, each file a micro-batch; some of the last hours' come again in the next file."""
    rng = np.random.default_rng(0)
    count = FILES * ROWS
    at = np.sort(rng.integers(0, END, count))
    known = at + np.where(rng.random(count) < 0.05, rng.integers(0, 6 * HOUR, count), 0)
    columns = {"id": np.arange(count), "at": at, "known": known, "key": rng.integers(0, KEYS, count), "x": rng.normal(size=count)}
    table = pa.table(columns).append_column("kind", pa.array(np.array(["a", "b", "c"])[np.arange(count) % 3]))
    for name, source in (("_event_id", "id"), ("_event_time", "at"), ("_known_time", "known")):
        table = table.append_column(name, table.column(source))
    (folder / "in").mkdir()
    for number in range(FILES):
        rows = np.arange(number * ROWS, (number + 1) * ROWS)
        again = rng.integers(rows[0] - 100, rows[0], ROWS // 100) if number else rows[:0]
        file = folder / "in" / f"{number}.parquet"
        pq.write_table(table.take(np.concatenate([rows, again])), file)
        os.utime(file, (number, number))


def run(session: Any, folder: Path, sink: Any) -> None:
    """All that there is, a file a batch, from where the checkpoint ends."""
    frame = session.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).parquet(str(folder / "in"))
    writer = frame.writeStream.foreachBatch(sink).option("checkpointLocation", str(folder / "checkpoint"))
    writer.trigger(availableNow=True).start().awaitTermination()


def assert_as_offline(folder: Path, store: KeyValue) -> None:
    instants = np.full(KEYS, END)
    questions = pa.table({"id": np.arange(KEYS), "asked_at": instants, "key": np.arange(KEYS), AS_OF: instants})
    built = OfflineStore(system, lambda _: sorted(map(str, (folder / "in").iterdir()))).features(questions)
    online = OnlineStore(system, store)
    served = [online.read({"key": key}, END).values for key in range(KEYS)]
    assert served == [list(row) for row in zip(*map(to_values, built.values()), strict=True)]


@pytest.fixture(params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyValue]:
    url = f"lmdb:{tmp_path}/online" if request.param == "lmdb" else f"{request.getfixturevalue('redis_url')}#{tmp_path}"
    opened = open_key_value(url)
    yield opened
    opened.close()


def test_a_query_that_fails_after_the_store_has_committed(spark: Any, tmp_path: Path, store: KeyValue) -> None:
    from pyspark.errors import StreamingQueryException

    make(tmp_path)
    sink, seen = OnlineSink(OnlineStore(system, store), events), []

    def twice_and_fails_now_and_then(batch: Any, number: int) -> None:
        seen.append(number)
        sink(batch, number)
        sink(batch, number)
        if number in (1, 4) and seen.count(number) < 3:
            raise RuntimeError("after the commit")

    for _ in range(4):
        with pytest.raises(StreamingQueryException, match="after the commit"):
            run(spark, tmp_path, twice_and_fails_now_and_then)
    run(spark, tmp_path, twice_and_fails_now_and_then)
    assert seen == [0, 1, 1, 1, 2, 3, 4, 4, 4, 5]
    assert_as_offline(tmp_path, store)


def test_another_checkpoint_is_refused(spark: Any, tmp_path: Path, store: KeyValue) -> None:
    from pyspark.errors import StreamingQueryException

    make(tmp_path)
    sink = OnlineSink(OnlineStore(system, store), events)
    run(spark, tmp_path, sink)
    (tmp_path / "checkpoint").rename(tmp_path / "lost")
    with pytest.raises(StreamingQueryException, match="its batches are numbered anew"):
        run(spark, tmp_path, sink)
    assert_as_offline(tmp_path, store)


def test_a_batch_of_other_columns_is_refused(spark: Any, tmp_path: Path, store: KeyValue) -> None:
    from mainspring.errors import DataError

    make(tmp_path)
    sink = OnlineSink(OnlineStore(system, store), events)
    frame = spark.read.parquet(str(tmp_path / "in"))
    with pytest.raises(DataError, match="Stream 'events', batch 0: there is no column 'x' of source 'events'"):
        sink(frame.drop("x"), 0)
    with pytest.raises(DataError, match="column 'key' is string"):
        sink(frame.withColumn("key", frame["key"].cast("string")), 0)
    assert list(store.scan(b"")) == []


def test_a_query_killed_after_the_store_has_committed(tmp_path: Path) -> None:
    make(tmp_path)
    codes = [subprocess.run([sys.executable, __file__, str(tmp_path)], check=False).returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    store = open_key_value(f"lmdb:{tmp_path}/online")
    assert_as_offline(tmp_path, store)
    store.close()


def killed_twice(folder: Path) -> None:
    """What the killed process does: it ends itself between the store's commit of a batch and Spark's, once for each of two."""
    store = open_key_value(f"lmdb:{folder}/online")
    sink = OnlineSink(OnlineStore(system, store), events)

    def dies(batch: Any, number: int) -> None:
        sink(batch, number)
        mark = folder / f"killed-{number}"
        if number in (2, 3) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    session = local_session()
    run(session, folder, dies)
    session.stop()
    store.close()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    killed_twice(Path(sys.argv[1]))
