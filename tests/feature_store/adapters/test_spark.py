"""Spark's features beside the embedded engine's: several views, any files, all that a data frame brings along."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_same_answer_on_spark import assert_same_to_the_bit

import mainspring as ms
from mainspring.clock import DAY, HOUR
from mainspring.errors import DataError, MissingExtraError
from mainspring.feature_store.adapters.spark import SparkOfflineStore, local_session
from mainspring.feature_store.offline import AS_OF, OfflineStore

long = pytest.mark.long
pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet:FutureWarning")

SPAN = 10 * DAY
payments = ms.Source(
    "payments",
    {"id": int, "at": datetime, "known": datetime, "card": int | None, "shop": str | None, "x": float | None, "good": bool | None},
    event_time="at",
    event_id="id",
    known_time="known",
)
shops = ms.Source("shops", {"shop": str, "since": datetime, "size": int | None}, event_time="since", event_id="shop", kind="table")
asked = ms.Source(
    "asked", {"id": int, "at": datetime, "card": int | None, "store": str | None, "x": float | None}, event_time="at", event_id="id"
)
card, both, every = payments.per("card"), payments.per("card", "shop", on=("card", "store")), payments.per(name="every")


@ms.feature
def ratio(x, card__x_mean_1d):  # type: ignore[no-untyped-def]
    return x / card__x_mean_1d


@ms.feature(type=int)
def twice(both__count):  # type: ignore[no-untyped-def]
    return both__count * 2


@ms.feature(type=bool)
def is_large(ratio):  # type: ignore[no-untyped-def]
    return ratio > 1


system = ms.System(
    "cards",
    "?",
    asked,
    [
        *(asked["x"], is_large, ratio, twice, card.mean("x", "1d"), card.count("1h"), card.last("shop"), card.last_k("id", 2)),
        *(both.last("x"), payments.per("card", "shop", on=("card", "store"), name="both").count(), every.sum("id", "1h", where="good")),
        *(card.count(by="shop"), shops.per("shop", on="store").last("size")),
    ],
    ms.Label(payments, "x", on="id", matures_after="1d"),
    ms.LightGBM(ignore=["card__id_last_k_2", "card__count_by_shop"]),
)


def stored(columns: dict[str, Any], event_id: str, at: str, known: str) -> pa.Table:
    table = pa.table(columns)
    for name, source in (("_event_id", event_id), ("_event_time", at), ("_known_time", known)):
        table = table.append_column(name, table.column(source))
    return table


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Payments, some late and some sent twice, in two files, of which the first was written before there was a column ``good``."""
    folder, rng, n = tmp_path_factory.mktemp("facts"), np.random.default_rng(0), 6_000
    at = rng.integers(0, SPAN, n)
    columns = {
        "id": 2**60 + np.arange(n),
        "at": at,
        "known": at + np.where(rng.random(n) < 0.1, rng.integers(0, HOUR, n), 0),
        "card": pa.array(rng.integers(0, 60, n), mask=rng.random(n) < 0.05),
        "shop": pa.array(rng.choice(["a", "b", "ü"], n), mask=rng.random(n) < 0.05),
        "x": pa.array(rng.normal(size=n), mask=rng.random(n) < 0.05),
        "good": pa.array(rng.random(n) < 0.5, mask=rng.random(n) < 0.05),
    }
    table = stored(columns, "id", "at", "known")
    since = rng.integers(0, SPAN, 30)
    of_shops = stored({"shop": rng.choice(["a", "b"], 30), "since": since, "size": np.arange(30)}, "shop", "since", "since")
    parts = {"old": table.slice(0, 2_000).drop_columns(["good"]), "new": pa.concat_tables([table.slice(2_000), table.slice(5_900)])}
    for name, part in {**parts, "shops": of_shops}.items():
        pq.write_table(part, folder / f"{name}.parquet")
    return {"payments": [str(folder / "old.parquet"), str(folder / "new.parquet")], "shops": [str(folder / "shops.parquet")]}


def questions(n: int = 1_500) -> pa.Table:
    rng = np.random.default_rng(1)
    when = rng.integers(0, SPAN + HOUR, n)
    columns = {
        "id": np.arange(n),
        "at": when,
        "card": pa.array(rng.integers(0, 65, n), mask=rng.random(n) < 0.1),
        "store": pa.array(rng.choice(["a", "b", "ü", "none"], n), mask=rng.random(n) < 0.1),
        "x": rng.normal(size=n),
        AS_OF: when,
    }
    return pa.table(columns)


@long
@pytest.mark.parametrize("buckets", [1, 7, None])
@pytest.mark.parametrize("how", [{}, {"known_as_of": False}, {"known_until": SPAN // 2}])
def test_answers_are_the_embedded_engines_to_the_bit(spark: Any, files: Any, buckets: int | None, how: dict[str, Any]) -> None:
    got = SparkOfflineStore(system, spark, files.__getitem__, buckets=buckets).features(questions(), **how)
    assert_same_to_the_bit(got, OfflineStore(system, files.__getitem__).features(questions(), **how))


@long
def test_nothing_is_an_answer_too(spark: Any, files: Any) -> None:
    got = SparkOfflineStore(system, spark, lambda _: []).features(questions(20))
    assert_same_to_the_bit(got, OfflineStore(system, lambda _: []).features(questions(20)))
    got = SparkOfflineStore(system, spark, files.__getitem__).features(questions(20).slice(0, 0))
    assert_same_to_the_bit(got, OfflineStore(system, files.__getitem__).features(questions(20).slice(0, 0)))


@long
def test_a_frame_keeps_every_row_and_all_that_it_had(spark: Any, files: Any) -> None:
    given = pa.concat_tables([questions(300), questions(300).slice(0, 50)]).append_column("label", pa.array(np.arange(350)))
    frame = SparkOfflineStore(system, spark, files.__getitem__).frame(spark.createDataFrame(given).repartition(3))
    names = [feature.name for feature in system.features if feature.name != "x"]
    assert frame.columns == [*given.column_names, *names]
    table = frame.toArrow().sort_by("label")
    assert table.select(given.column_names).equals(given.cast(table.select(given.column_names).schema))
    want = OfflineStore(system, files.__getitem__).features(given)
    assert table.column("card__count_1h").to_pylist() == want["card__count_1h"].tolist()
    assert table.schema.field("card__count_by_shop").type == pa.string()


@long
def test_questions_of_other_columns_are_refused(spark: Any, files: Any) -> None:
    store, given = SparkOfflineStore(system, spark, files.__getitem__), spark.createDataFrame(questions(5))
    with pytest.raises(DataError, match="System 'cards', questions: column 'card' is string, declared as int"):
        store.frame(given.withColumn("card", given["card"].cast("string")))
    with pytest.raises(DataError, match="there is no column 'store'"):
        store.frame(given.drop("store"))
    with pytest.raises(DataError, match="column 'ratio' has the name of a feature"):
        store.frame(given.withColumn("ratio", given["x"]))
    narrow = given.withColumn("card", given["card"].cast("int")).withColumn("x", given["x"].cast("float"))
    assert dict(store.frame(narrow).dtypes)["card"] == "bigint"


def test_without_pyspark_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mainspring\[spark\]'"):
        local_session()


@long
def test_without_java_the_error_says_so(tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="the long suites install it")
    code = "from mainspring.feature_store.adapters.spark import local_session; local_session()"
    environment = {**os.environ, "JAVA_HOME": str(tmp_path)}
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "MainspringError: A Spark session: Java did not start" in failed.stderr
    assert "Install Java 17 or newer and set JAVA_HOME to it." in failed.stderr
