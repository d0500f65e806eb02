"""Offline features: point-in-time joins and windows in DuckDB, wrapped until they answer as SEMANTICS says.

Facts known when they happened are *regular*: a window over the union of facts and questions, and an ASOF join, answer them.
Facts known later, and event ids that occur more than once, are *irregular*: few, joined question by question, and merged
with the regular part. The window frames are exact to the microsecond and nothing is computed by subtraction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mainspring.columns import Array, from_arrow
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME
from mainspring.spec import Aggregate, Source, System, View
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
        self, questions: pa.Table, *, known_as_of: bool = True, known_until: int | None = None, progress: Progress | None = None
    ) -> dict[str, Array]:
        """Every feature of the System for each question, as columns of shape ``(len(questions),)`` in the questions' order.

        ``questions`` holds the request's columns and ``_as_of`` (int64, microseconds UTC). With ``known_as_of`` a fact counts
        only from its known time on; ``known_until`` leaves out facts known after that instant altogether.
        """
        columns = {name: from_arrow(questions.column(name), self._system.request.columns[name].type) for name in self._request(questions)}
        views = self._system.views
        with duckdb.connect(config=self._config) as connection:
            connection.register("given", questions)
            connection.execute("CREATE TEMP TABLE questions AS SELECT row_number() OVER () - 1 AS _row, * FROM given")
            for source in dict.fromkeys(view.source for view in views):
                self._load(connection, source, known_as_of, known_until)
            for done, (view, aggregates) in enumerate(views.items(), start=1):
                columns |= _answer(connection, view, aggregates, known_as_of)
                if progress is not None:
                    progress(done, len(views))
        columns |= apply_functions(self._system.functions, columns)
        return {feature.name: columns[feature.name] for feature in self._system.features}

    def labels(self, questions: pa.Table, *, known_until: int) -> pa.Table:
        """The label of each question: columns ``label`` (float64, null where there is none) and ``label_known_at`` (int64).

        A label counts when it was known by ``known_until`` and no later than ``matures_after`` past the question; the newest
        known fact wins. A question without one that has matured gets ``otherwise``.
        """
        label = self._system.label
        with duckdb.connect(config=self._config) as connection:
            connection.register("questions", questions.append_column("_row", pa.array(np.arange(len(questions)))))
            default = "NULL" if label.otherwise is None else repr(float(label.otherwise))
            matured = f"q.{AS_OF} + {label.matures_after_us}"
            sql = f"""
                WITH found AS (
                    SELECT q._row, arg_max(f.{_name(label.column)}::DOUBLE, (f.{KNOWN_TIME}, f.{EVENT_ID})) AS value,
                           max(f.{KNOWN_TIME}) AS known_at
                    FROM questions q JOIN {self._scan(label.source)} f ON q.{_name(label.on)} = f.{_name(label.on)}
                    WHERE f.{KNOWN_TIME} <= least({known_until}, {matured}) GROUP BY q._row)
                SELECT CASE WHEN found._row IS NOT NULL THEN value
                            WHEN {matured} <= {known_until} THEN {default} END AS label, known_at AS label_known_at
                FROM questions q LEFT JOIN found USING (_row) ORDER BY q._row"""
            return connection.sql(sql).to_arrow_table()

    def _request(self, questions: pa.Table) -> list[str]:
        return [name for name in questions.column_names if name in self._system.request.columns]

    def _scan(self, source: Source) -> str:
        files = list(self._files(source.name))
        if files:
            return f"read_parquet({files!r}, union_by_name = true)"
        fields = [*((name, str(source.columns[name].type)) for name in source.columns.names), (EVENT_TIME, "int"), (KNOWN_TIME, "int")]
        fields.append((EVENT_ID, str(source.schema[source.event_id].type)))
        return f"(SELECT {', '.join(f'NULL::{_SQL[type_]} AS {_name(name)}' for name, type_ in fields)} WHERE false)"

    def _load(self, connection: duckdb.DuckDBPyConnection, source: Source, known_as_of: bool, known_until: int | None) -> None:
        used = {column for view, aggregates in self._system.views.items() if view.source == source for column in view.columns}
        used |= {aggregate.column for aggregate in self._system.aggregates if aggregate.view.source == source and aggregate.column}
        names = ", ".join(_name(column) for column in sorted(used))
        until = "" if known_until is None else f"WHERE {KNOWN_TIME} <= {known_until}"
        late = f"{KNOWN_TIME} > {EVENT_TIME}" if known_as_of else "false"
        connection.execute(f"""
            CREATE TEMP TABLE {_table(source)} AS
            WITH facts AS (
                SELECT {EVENT_ID} AS _id, {EVENT_TIME} AS _t, {KNOWN_TIME} AS _n, {names} FROM {self._scan(source)} {until}),
            repeated AS (SELECT _id FROM facts GROUP BY _id HAVING count(*) > 1)
            SELECT *, {late.replace(KNOWN_TIME, "_n").replace(EVENT_TIME, "_t")} OR _id IN (FROM repeated) AS _irregular FROM facts""")


_SQL = {"str": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "instant": "BIGINT"}


def _answer(connection: duckdb.DuckDBPyConnection, view: View, aggregates: Sequence[Aggregate], known_as_of: bool) -> Mapping[str, Array]:
    """The aggregates of one view for every question, in the questions' order."""
    keys = ", ".join(f"{_name(column)} AS _k{i}" for i, column in enumerate(view.columns)) or "0 AS _k0"
    present = " AND ".join(f"{_name(column)} IS NOT NULL" for column in view.columns) or "true"
    connection.execute(f"CREATE OR REPLACE TEMP VIEW facts AS SELECT *, {keys} FROM {_table(view.source)} WHERE {present}")
    asked = ", ".join(f"{_name(column)} AS _k{i}" for i, column in enumerate(view.on)) or "0 AS _k0"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT _row, {AS_OF} AS _t, {asked} FROM questions")
    irregular = connection.execute("SELECT count(*) FROM facts WHERE _irregular").fetchall()[0][0]
    folds = [aggregate for aggregate in aggregates if aggregate.function != "last"]
    newest = [aggregate for aggregate in aggregates if aggregate.function == "last"]
    columns: dict[str, Array] = {}
    for sql, group in ((_folds, folds), (_newest, newest)):
        if group:
            answer = connection.sql(sql(view, group, bool(irregular), known_as_of)).to_arrow_table()
            columns |= {aggregate.name: from_arrow(answer.column(f"v{i}"), aggregate.type) for i, aggregate in enumerate(group)}
    return {aggregate.name: columns[aggregate.name] for aggregate in aggregates}


def _folds(view: View, aggregates: Sequence[Aggregate], irregular: bool, known_as_of: bool) -> str:
    """SQL that answers counts, sums, means, minima and maxima: windows over the regular facts, a join for the irregular."""
    keys = _keys(view)
    columns = sorted({aggregate.column for aggregate in aggregates if aggregate.column})
    values = "".join(f", {_name(column)}" for column in columns)
    nulls = "".join(f", NULL AS {_name(column)}" for column in columns)
    before = "CURRENT ROW" if view.source.kind == "table" else "1 PRECEDING"
    frames = {aggregate.window_us: f"w{i}" for i, aggregate in enumerate(aggregates)}
    windows = ", ".join(
        f"{frame} AS (PARTITION BY {keys} ORDER BY _t RANGE BETWEEN {'UNBOUNDED' if width is None else width} PRECEDING AND {before})"
        for width, frame in frames.items()
    )
    reach = None if None in frames else max(width for width in frames if width is not None)
    recent = "" if reach is None else f" AND _t >= (SELECT min(_t) FROM asked) - {reach}"
    parts = [_parts(aggregate) if irregular else [_whole(aggregate)] for aggregate in aggregates]
    over = ", ".join(
        f"{part} OVER {frames[aggregate.window_us]} AS p{i}_{j}"
        for i, aggregate in enumerate(aggregates)
        for j, part in enumerate(parts[i])
    )
    sql = f"""
        WITH everything AS (
            SELECT NULL AS _row, {keys}, _t, 1 AS _fact{values} FROM facts WHERE NOT _irregular{recent}
            UNION ALL SELECT _row, {keys}, _t, NULL AS _fact{nulls} FROM asked),
        windows AS (SELECT _row, {over} FROM everything WINDOW {windows}),
        regular AS (SELECT * FROM windows WHERE _row IS NOT NULL)"""
    if irregular:
        sql += _irregular_folds(view, aggregates, known_as_of)
    merged = [_merged(aggregate, i, irregular) for i, aggregate in enumerate(aggregates)]
    tail = "LEFT JOIN irregular ON regular._row = irregular._row" if irregular else ""
    return f"{sql} SELECT {', '.join(merged)} FROM regular {tail} ORDER BY regular._row"


def _whole(aggregate: Aggregate) -> str:
    parts = _parts(aggregate)
    return parts[0] if len(parts) == 1 else parts[1].replace("sum(", "avg(", 1)


def _parts(aggregate: Aggregate) -> list[str]:
    """Mergeable SQL aggregates that an aggregate is worked out from."""
    if aggregate.column is None:
        return ["count(_fact)"]
    column = _name(aggregate.column)
    number = f"{column}::BIGINT" if str(aggregate.view.source.columns[aggregate.column].type) == "bool" else column
    if aggregate.function == "mean":
        return [f"count({column})", f"sum({number})"]
    return [f"{aggregate.function}({number})"]


def _irregular_folds(view: View, aggregates: Sequence[Aggregate], known_as_of: bool) -> str:
    inside = [
        "true" if aggregate.window_us is None else f"_t >= asked_at - {aggregate.window_us}" for aggregate in aggregates
    ]  # fmt: skip
    filtered = ", ".join(
        f"{part} FILTER ({inside[i]}) AS q{i}_{j}" for i, aggregate in enumerate(aggregates) for j, part in enumerate(_parts(aggregate))
    )
    return f""",
        pairs AS (
            SELECT a._row, a._t AS asked_at, 1 AS _fact, f.* FROM asked a JOIN facts f USING ({_keys(view)})
            WHERE f._irregular AND {_visible(view, known_as_of)}
            QUALIFY row_number() OVER (PARTITION BY a._row, f._id ORDER BY f._n DESC, f._t DESC) = 1),
        irregular AS (SELECT _row, {filtered} FROM pairs GROUP BY _row)"""


def _merged(aggregate: Aggregate, i: int, irregular: bool) -> str:
    function = aggregate.function
    if not irregular:
        return f"p{i}_0::{_SQL[str(aggregate.type)]} AS v{i}"
    pairs = [(f"p{i}_{j}", f"q{i}_{j}") for j in range(len(_parts(aggregate)))]
    if function in ("min", "max"):
        value = f"{'least' if function == 'min' else 'greatest'}({pairs[0][0]}, {pairs[0][1]})"
    elif function == "mean":
        count, total = (f"(coalesce({p}, 0) + coalesce({q}, 0))" for p, q in pairs)
        value = f"CASE WHEN {count} > 0 THEN {total}::DOUBLE / {count} END"
    elif function == "count":
        value = f"coalesce({pairs[0][0]}, 0) + coalesce({pairs[0][1]}, 0)"
    else:
        value = f"CASE WHEN {pairs[0][0]} IS NULL THEN {pairs[0][1]} ELSE {pairs[0][0]} + coalesce({pairs[0][1]}, 0) END"
    return f"({value})::{_SQL[str(aggregate.type)]} AS v{i}"


def _newest(view: View, aggregates: Sequence[Aggregate], irregular: bool, known_as_of: bool) -> str:
    """SQL that answers the newest values: an ASOF join on the regular facts, a join for the irregular, the later one wins."""
    keys, after = _keys(view), ">=" if view.source.kind == "table" else ">"
    values = ", ".join(f"{_name(column)}" for column in sorted({aggregate.column or "" for aggregate in aggregates}))
    matched = " AND ".join(f"a._k{i} = f._k{i}" for i in range(_width(view)))
    sql = f"""
        WITH facts_once AS (SELECT DISTINCT ON ({keys}, _t) {keys}, _t, _n, _id, {values} FROM facts
            WHERE NOT _irregular ORDER BY {keys}, _t, _n DESC, _id DESC),
        found AS (SELECT a._row, a._t AS asked_at, f._t AS _t, f._n AS _n, f._id AS _id, {_prefixed("f", values)}
            FROM asked a ASOF LEFT JOIN facts_once f ON {matched} AND a._t {after} f._t)"""
    if irregular:
        sql += f""",
        pairs AS (
            SELECT a._row, a._t AS asked_at, f._t, f._n, f._id, {_prefixed("f", values)} FROM asked a JOIN facts f ON {matched}
            WHERE f._irregular AND {_visible(view, known_as_of)}
            QUALIFY row_number() OVER (PARTITION BY a._row, f._id ORDER BY f._n DESC, f._t DESC) = 1),
        best AS (SELECT * FROM (FROM found UNION ALL FROM pairs)
            QUALIFY row_number() OVER (PARTITION BY _row ORDER BY _t DESC NULLS LAST, _n DESC, _id DESC) = 1)"""
    chosen = [
        f"{_name(aggregate.column or '')} AS v{i}"
        if aggregate.max_age_us is None
        else f"CASE WHEN _t >= asked_at - {aggregate.max_age_us} THEN {_name(aggregate.column or '')} END AS v{i}"
        for i, aggregate in enumerate(aggregates)
    ]
    return f"{sql} SELECT {', '.join(chosen)} FROM {'best' if irregular else 'found'} ORDER BY _row"


def _visible(view: View, known_as_of: bool) -> str:
    before = "<=" if view.source.kind == "table" else "<"
    return f"f._t {before} a._t" + (" AND f._n <= a._t" if known_as_of else "")


def _keys(view: View) -> str:
    return ", ".join(f"_k{i}" for i in range(_width(view)))


def _width(view: View) -> int:
    return max(1, len(view.columns))


def _prefixed(table: str, names: str) -> str:
    return ", ".join(f"{table}.{name}" for name in names.split(", "))


def _table(source: Source) -> str:
    return _name(f"source_{source.name}")


def _name(column: str) -> str:
    return f'"{column}"'
