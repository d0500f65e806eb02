"""Offline features and labels over Parquet files, on one machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.columns import Array, fits, from_arrow, to_values
from mainspring.errors import DataError, StorageError
from mainspring.feature_store.point_in_time import answer, name_facts, name_questions, quoted
from mainspring.schema import ENVELOPE, EVENT_ID, EVENT_TIME, KNOWN_TIME, arrow_type
from mainspring.spec import Source, System, View
from mainspring.spec.evaluate import apply_functions

AS_OF = "_as_of"
Files = Callable[[str], Sequence[str]]
Progress = Callable[[int, int], None]


class OfflineStore:
    """The offline side of a System's views over Parquet files; ``files(source)`` lists the files of a source."""

    def __init__(self, system: System, files: Files, *, threads: int = 2, memory: str = "2GB") -> None:
        self._system = system
        self._files = files
        self._config: dict[str, Any] = {"threads": threads, "memory_limit": memory, "preserve_insertion_order": True}

    def features(
        self,
        questions: pa.Table,
        *,
        known_as_of: bool = True,
        known_until: int | None = None,
        progress: Progress | None = None,
        only: Collection[str] | None = None,
    ) -> dict[str, Array]:
        """Every feature of the System for each question, as columns of shape ``(len(questions),)`` in the questions' order.

        ``questions`` holds the request's columns and ``_as_of`` (int64, microseconds UTC). With ``known_as_of`` a fact counts
        only from its known time on; ``known_until`` leaves out facts known after that instant altogether. ``only`` names the
        features that are wanted, all without it.

        Raises:
            DataError: a key column of the questions has another type than declared.
            StorageError: a file is damaged or gone.
        """
        self._check(questions)
        wanted = {feature.name for feature in self._system.features} if only is None else set(only)
        needed = self._needed(wanted)
        columns = {name: from_arrow(questions.column(name), self._system.request.columns[name].type) for name in self._request(questions)}
        kept = {view: [one for one in aggregates if one.name in needed] for view, aggregates in self._system.views.items()}
        views = {view: aggregates for view, aggregates in kept.items() if aggregates}
        with _connected(self._config) as connection:
            name_questions(connection, questions, AS_OF)
            for source in dict.fromkeys(view.source for view in views):
                self._name_facts(connection, source, known_until)
            for done, (view, aggregates) in enumerate(views.items(), start=1):
                columns |= answer(connection, view, aggregates, known_as_of)
                if progress is not None:
                    progress(done, len(views))
        columns |= apply_functions([one for one in self._system.functions if one.name in needed], columns)
        return {feature.name: columns[feature.name] for feature in self._system.features if feature.name in wanted}

    def labels(self, questions: pa.Table, *, known_until: int) -> pa.Table:
        """The label of each question: columns ``label`` (float64, null where there is none) and ``label_known_at`` (int64).

        A label counts when it was known by ``known_until`` and no later than ``matures_after`` past the question; the newest
        known fact wins. A question without one that has matured gets ``otherwise``.
        """
        label = self._system.label
        with _connected(self._config) as connection:
            connection.register("questions", questions.append_column("_row", pa.array(np.arange(len(questions)))))
            default = "NULL" if label.otherwise is None else repr(float(label.otherwise))
            matured = f"q.{AS_OF} + {label.matures_after_us}"
            sql = f"""
                WITH found AS (
                    SELECT q._row, arg_max(f.{quoted(label.column)}::DOUBLE, (f.{KNOWN_TIME}, f.{EVENT_ID})) AS value,
                           max(f.{KNOWN_TIME}) AS known_at
                    FROM questions q JOIN {self._scan(label.source)} f ON q.{quoted(label.on)} = f.{quoted(label.on)}
                    WHERE f.{KNOWN_TIME} <= least({known_until}, {matured}) GROUP BY q._row)
                SELECT CASE WHEN found._row IS NOT NULL THEN value
                            WHEN {matured} <= {known_until} THEN {default} END AS label, known_at AS label_known_at
                FROM questions q LEFT JOIN found USING (_row) ORDER BY q._row"""
            return connection.sql(sql).to_arrow_table()

    def facts(self, view: View, request: Mapping[str, Array]) -> pa.Table:
        """The facts that a view may hold for some requests, in the order of the log: keys, what its aggregates read, id and times."""
        read = [column for one in self._system.views[view] for column in one.columns]
        names = list(dict.fromkeys((*view.columns, *read, *ENVELOPE)))
        chosen = None
        for column, on in zip(view.columns, view.on, strict=True):
            keys = pc.field(column).isin(
                pa.array([key for key in set(to_values(request[on])) if key is not None], arrow_type(view.source.columns[column].type))
            )
            chosen = keys if chosen is None else chosen & keys
        parts = [pq.read_table(file, columns=names, filters=chosen) for file in self._files(view.source.name)]
        if parts:
            return pa.concat_tables(parts, promote_options="permissive")
        return pa.table({name: pa.array([], pa.int64()) for name in names})

    def _needed(self, wanted: set[str]) -> set[str]:
        """The features that are wanted, and what their functions read."""
        needed = set(wanted)
        for function in reversed(self._system.functions):
            if function.name in needed:
                needed |= set(function.inputs)
        return needed

    def _check(self, questions: pa.Table) -> None:
        for name in dict.fromkeys(name for view in self._system.views for name in view.on):
            declared, found = self._system.request.columns[name].type, questions.schema.field(name).type
            if not fits(found, declared):
                raise DataError(f"System '{self._system.name}', questions: column '{name}' is {found}, declared as {declared}. Cast it.")

    def _request(self, questions: pa.Table) -> list[str]:
        return [name for name in questions.column_names if name in self._system.request.columns]

    def _scan(self, source: Source) -> str:
        files = list(self._files(source.name))
        if files:
            return f"read_parquet({files!r}, union_by_name = true)"
        fields = [*((name, str(source.columns[name].type)) for name in source.columns.names), (EVENT_TIME, "int"), (KNOWN_TIME, "int")]
        fields.append((EVENT_ID, str(source.schema[source.event_id].type)))
        return f"(SELECT {', '.join(f'NULL::{_SQL[type_]} AS {quoted(name)}' for name, type_ in fields)} WHERE false)"

    def _name_facts(self, connection: duckdb.DuckDBPyConnection, source: Source, known_until: int | None) -> None:
        used = {column for view in self._system.views if view.source == source for column in view.columns}
        used |= {column for aggregate in self._system.aggregates if aggregate.view.source == source for column in aggregate.columns}
        until = "true" if known_until is None else f"{KNOWN_TIME} <= {known_until}"
        name_facts(connection, source, used, self._scan(source), until)


@contextmanager
def _connected(config: dict[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose failures are errors of the tables that it reads."""
    try:
        with duckdb.connect(config=config) as connection:
            yield connection
    except duckdb.Error as error:
        raise StorageError(
            f"Offline tables: cannot be read ({str(error).splitlines()[0]}). Where a file is damaged, remove the tables' folder: "
            "it is rebuilt from the event log."
        ) from error


_SQL = {"str": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "instant": "BIGINT"}
