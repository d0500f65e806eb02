"""Offline features on Spark: a worker gets the questions and facts of a share of the keys and answers them as one machine does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from mainspring.columns import Array, from_arrow, to_array, to_arrow
from mainspring.errors import DataError, MainspringError, MissingExtraError
from mainspring.feature_store.offline import AS_OF, Files
from mainspring.feature_store.point_in_time import answer, name_facts, name_questions
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME, Field, Type
from mainspring.spec import Aggregate, Column, Function, Source, System, View
from mainspring.spec.evaluate import apply_functions

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import types as spark_types

_BUCKET = "_bucket"
_QUESTION = "_question"
_TYPES = {Type.STR: "string", Type.INT: "long", Type.FLOAT: "double", Type.BOOL: "boolean", Type.INSTANT: "long", Type.JSON: "string"}
_WHOLE = ("byte", "short", "integer")
_FIT = {Type.INT: _WHOLE, Type.INSTANT: _WHOLE, Type.FLOAT: ("float",)}


class SparkOfflineStore:
    """What `OfflineStore` answers, to the bit, where facts or questions are more than one machine holds.

    Every view is one shuffle of its questions and facts by a hash of the key into ``buckets`` (by default
    ``spark.sql.shuffle.partitions`` of the session). A worker holds one bucket of a view at a time in memory: more buckets need
    less of it, and cost about a tenth of a second each. ``memory`` is what DuckDB may take besides, before it spills to disk.

    The facts of one key meet in one worker and must fit there. Where a key has a great part of all facts, and in a view
    without key columns, that worker ends after all others; no setting of Spark splits a key. Questions with a null key are
    spread over the buckets.

    Workers need this package, and what the System's functions import.

    Args:
        system: the declaration; it travels to the workers pickled.
        session: a Spark 4 session.
        files: lists the Parquet files of a source, as paths or URLs that every worker can read.
        buckets: how many shares the keys of a view are cut into.
        memory: DuckDB's memory in each running task.
    """

    def __init__(self, system: System, session: SparkSession, files: Files, *, buckets: int | None = None, memory: str = "1GB") -> None:
        self._system = system
        self._session = session
        self._files = files
        self._buckets = buckets or int(session.conf.get("spark.sql.shuffle.partitions"))
        self._memory = memory

    def features(self, questions: pa.Table, *, known_as_of: bool = True, known_until: int | None = None) -> dict[str, Array]:
        """Every feature of the System for each question, as `OfflineStore.features` gives them.

        Questions and answers pass through the driver; `frame` leaves both with the workers.
        """
        given = [name for name in questions.column_names if name == AS_OF or name in self._system.request.columns]
        numbered = questions.select(given).append_column(_QUESTION, pa.array(np.arange(len(questions))))
        answers = self.frame(self._session.createDataFrame(numbered), known_as_of=known_as_of, known_until=known_until)
        table = answers.select(_QUESTION, *(_quoted(feature.name) for feature in self._system.features)).toArrow().sort_by(_QUESTION)
        return {feature.name: from_arrow(table.column(feature.name), feature.type) for feature in self._system.features}

    def frame(self, questions: DataFrame, *, known_as_of: bool = True, known_until: int | None = None) -> DataFrame:
        """The questions with the System's features as further columns: every row once, with all that it had.

        ``questions`` holds the request's columns and ``_as_of`` (long, microseconds UTC). Lists and maps are JSON text. A data
        frame has no order: sort by a column of yours where it matters. `known_as_of` and `known_until` are those of `OfflineStore`.

        Raises:
            DataError: a column is missing, is in the way of a feature's, or has another type than declared.
        """
        asked = self._checked(questions)
        for view, aggregates in self._system.views.items():
            asked = self._answered(asked, view, aggregates, known_as_of, known_until)
        if self._system.functions:
            asked = self._applied(asked)
        names = dict.fromkeys([*questions.columns, *(feature.name for feature in self._system.features)])
        return asked.select(*map(_quoted, names))

    def _checked(self, questions: DataFrame) -> DataFrame:
        """The questions with the types that are declared, where Spark's are narrower."""
        request, place = self._system.request.columns, f"System '{self._system.name}', questions"
        computed = {feature.name for feature in self._system.features if not isinstance(feature, Column)}
        taken = computed.intersection(questions.columns)
        if taken:
            raise DataError(f"{place}: column '{min(taken)}' has the name of a feature. Drop or rename it.")
        missing = self._needed() - set(questions.columns)
        if missing:
            raise DataError(f"{place}: there is no column '{min(missing)}'. Add it.")
        wanted = {name: request[name].type for name in questions.columns if name in request} | {AS_OF: Type.INSTANT}
        held = {field.name: field.dataType.typeName() for field in questions.schema.fields}
        for name, type_ in wanted.items():
            if held[name] not in ("void", _TYPES[type_], *_FIT.get(type_, ())):
                raise DataError(f"{place}: column '{name}' is {held[name]}, declared as {type_}. Cast it to {_TYPES[type_]}.")
        return questions.withColumns({name: questions[name].cast(_TYPES[type_]) for name, type_ in wanted.items()})

    def _needed(self) -> set[str]:
        system = self._system
        keys = {column for view in system.views for column in view.on}
        inputs = {name for function in system.functions for name in function.inputs if name in system.request.columns}
        return {AS_OF, *keys, *inputs, *(feature.name for feature in system.features if isinstance(feature, Column))}

    def _answered(
        self, questions: DataFrame, view: View, aggregates: Sequence[Aggregate], known_as_of: bool, known_until: int | None
    ) -> DataFrame:
        from pyspark.sql import functions as f

        columns = sorted({*view.columns, *(column for aggregate in aggregates for column in aggregate.columns)})
        facts = self._facts(view.source).select(EVENT_ID, EVENT_TIME, KNOWN_TIME, *columns)
        if known_until is not None:
            facts = facts.where(f.col(KNOWN_TIME) <= known_until)
        for column in view.columns:
            facts = facts.where(f.col(column).isNotNull())
        asked = questions.withColumn(_BUCKET, self._bucket(view.on, AS_OF)).groupBy(_BUCKET)
        known = facts.withColumn(_BUCKET, self._bucket(view.columns, EVENT_TIME)).groupBy(_BUCKET)
        return asked.cogroup(known).applyInArrow(
            _answerer(view, aggregates, columns, known_as_of, self._memory), _with(questions.schema, aggregates)
        )

    def _bucket(self, keys: Sequence[str], spread: str) -> SparkColumn:
        """The share of the keys that a row belongs to; ``spread`` shares out the rows with a null key, which match nothing."""
        from pyspark.sql import functions as f

        bucket = f.xxhash64(*keys) if keys else f.lit(0)
        for key in keys:
            bucket = f.when(f.col(key).isNull(), f.xxhash64(spread)).otherwise(bucket)
        return f.pmod(bucket, f.lit(self._buckets)).cast("int")

    def _facts(self, source: Source) -> DataFrame:
        from pyspark.sql.types import StructType

        fields = [*source.columns.fields, Field(EVENT_ID, source.schema[source.event_id].type)]
        schema = _with(StructType(), [*fields, Field(EVENT_TIME, Type.INSTANT), Field(KNOWN_TIME, Type.INSTANT)])
        files = list(self._files(source.name))
        return self._session.read.schema(schema).parquet(*files) if files else self._session.createDataFrame([], schema)

    def _applied(self, asked: DataFrame) -> DataFrame:
        system = self._system
        known = {**{field.name: field.type for field in system.request.columns.fields}, **{one.name: one.type for one in system.aggregates}}
        read = {name: known[name] for function in system.functions for name in function.inputs if name in known}
        return asked.mapInArrow(_applier(system.functions, read), _with(asked.schema, system.functions))


def local_session(cores: int = 2, *, shuffle_partitions: int = 8, memory: str = "2g", **settings: str) -> SparkSession:
    """A Spark session in this machine's own Java, reachable from nowhere else; its workers import what this process can.

    ``settings`` are Spark's own, with ``__`` for each dot: ``spark__sql__caseSensitive="true"``.

    Raises:
        MissingExtraError: the package ``pyspark`` is not installed.
        MainspringError: Java is missing or older than Spark needs.
    """
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtraError("A Spark session", "pyspark", "spark") from error
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    config = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": memory,
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": str(shuffle_partitions),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    try:
        return SparkSession.builder.master(f"local[{cores}]").appName("mainspring").config(map=config).getOrCreate()
    except PySparkRuntimeError as error:
        raise MainspringError(
            f"A Spark session: Java did not start ({error}). Install Java 17 or newer and set JAVA_HOME to it."
        ) from error


def _answerer(
    view: View, aggregates: Sequence[Aggregate], columns: Sequence[str], known_as_of: bool, memory: str
) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """What a worker does with the questions and facts of a bucket."""

    def answered(questions: pa.Table, facts: pa.Table) -> pa.Table:
        kept = questions.drop_columns([_BUCKET])
        answers: dict[str, Array] = {aggregate.name: to_array([], aggregate.type) for aggregate in aggregates}
        if len(kept):
            with duckdb.connect(config={"threads": 1, "memory_limit": memory, "preserve_insertion_order": True}) as connection:
                name_questions(connection, kept.select(list(dict.fromkeys([AS_OF, *view.on]))), AS_OF)
                connection.register("bucket", facts)
                name_facts(connection, view.source, columns, "bucket")
                answers |= answer(connection, view, aggregates, known_as_of)
        for aggregate in aggregates:
            kept = kept.append_column(aggregate.name, _stored(answers, aggregate))
        return kept

    return answered


def _applier(functions: Sequence[Function], read: dict[str, Type]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a worker does with rows whose aggregates are known."""

    def applied(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            results = apply_functions(functions, {name: from_arrow(batch.column(name), type_) for name, type_ in read.items()})
            longer = batch
            for function in functions:
                longer = longer.append_column(function.name, _stored(results, function))
            yield longer

    return applied


def _stored(columns: dict[str, Array], feature: Aggregate | Function) -> pa.Array:
    return to_arrow(columns[feature.name], Field(feature.name, feature.type, True))


def _with(schema: spark_types.StructType, added: Sequence[Any]) -> spark_types.StructType:
    """The schema with a nullable field more for everything that has a name and a type."""
    from pyspark.sql.types import StructType

    longer = StructType(list(schema.fields))
    for one in added:
        longer.add(one.name, _TYPES[one.type])
    return longer


def _quoted(name: str) -> str:
    return f"`{name}`"
