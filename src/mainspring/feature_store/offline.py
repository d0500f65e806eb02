"""Offline features: point-in-time joins and windows in DuckDB, wrapped until they answer as SEMANTICS says.

Facts known when they happened are *regular*: a window over the union of facts and questions, and an ASOF join, answer them.
Facts known later, and event ids that occur more than once, are *irregular*: few, joined question by question, and merged
with the regular part. The window frames are exact to the microsecond and nothing is computed by subtraction. Aggregations
that SQL does not know are answered key by key by the functions that answer online.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mainspring.clock import SECOND
from mainspring.columns import Array, from_arrow, to_array
from mainspring.feature_engineering.facts import EventIds, State, ViewPlan, storable
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME, Type
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
        used |= {column for aggregate in self._system.aggregates if aggregate.view.source == source for column in aggregate.columns}
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
    newest = [aggregate for aggregate in aggregates if aggregate.is_newest]
    in_sql = [aggregate for aggregate in aggregates if not aggregate.is_newest and _speaks_sql(aggregate, bool(irregular))]
    columns: dict[str, Array] = {}
    for sql, group in ((_folds, in_sql), (_newest, newest)):
        if group:
            answer = connection.sql(sql(view, group, bool(irregular), known_as_of)).to_arrow_table()
            columns |= {aggregate.name: from_arrow(answer.column(f"v{i}"), aggregate.type) for i, aggregate in enumerate(group)}
    rest = tuple(aggregate for aggregate in aggregates if aggregate not in (*newest, *in_sql))
    if rest:
        columns |= _replayed(connection, ViewPlan(view, rest), known_as_of)
    return {aggregate.name: columns[aggregate.name] for aggregate in aggregates}


def _speaks_sql(aggregate: Aggregate, irregular: bool) -> bool:
    return aggregate.by is None and (aggregate.function in _PARTS or (aggregate.function == "distinct" and not irregular))


def _replayed(connection: duckdb.DuckDBPyConnection, plan: ViewPlan, known_as_of: bool) -> dict[str, Array]:
    """What SQL does not say: every key's facts as the state that online reads, asked the same way."""
    keys = _keys(plan.view)
    names = "".join(f", {_name(column)}" for column in plan.columns)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE groups AS SELECT {keys}, row_number() OVER () AS _g FROM (SELECT DISTINCT {keys} FROM asked)"
    )
    facts = connection.sql(f"""
        SELECT _g, _t, _n, _id, _irregular{names} FROM facts JOIN groups USING ({keys}) ORDER BY _g, _t, _n, _id""")
    states = _States(plan, facts.to_arrow_table())
    asked = connection.sql(f"SELECT _row, _t, _g FROM asked LEFT JOIN groups USING ({keys}) ORDER BY _g, _row").to_arrow_table()
    answers: list[Any] = [None] * len(asked)
    state, held = plan.empty(), None
    for row, instant, group in zip(*(asked.column(name).to_pylist() for name in ("_row", "_t", "_g")), strict=True):
        if group != held:
            state, held = states.of(group), group
        answers[row] = [value for value, _ in plan.read(state, instant, known_as_of=known_as_of)]
    return {one.name: to_array([row[i] for row in answers], one.type) for i, one in enumerate(plan.aggregates)}


class _States:
    """The facts of every group as states, from a table in order of group and rank."""

    def __init__(self, plan: ViewPlan, facts: pa.Table) -> None:
        self._empty = plan.empty()
        self._times, self._known, self._irregular, groups = (facts.column(name).to_numpy() for name in ("_t", "_n", "_irregular", "_g"))
        self._ids = facts.column("_id").to_pylist()
        self._columns = [
            storable(from_arrow(facts.column(name), type_), type_) for name, type_ in zip(plan.columns, plan.types, strict=True)
        ]
        found, starts, counts = np.unique(groups, return_index=True, return_counts=True)
        self._extents = {g: slice(start, start + n) for g, start, n in zip(found.tolist(), starts.tolist(), counts.tolist(), strict=True)}

    def of(self, group: int | None) -> State:
        """The state of a group; an empty one where there are no facts."""
        at = self._extents.get(group) if group is not None else None
        if at is None:
            return self._empty
        columns = [column[at] for column in self._columns]
        ids = EventIds.of(self._ids[at])
        return State(self._times[at], self._known[at], ids, columns, self._empty.base, bool(self._irregular[at].any()))


def _folds(view: View, aggregates: Sequence[Aggregate], irregular: bool, known_as_of: bool) -> str:
    """SQL that answers counts, sums, means, minima and maxima: windows over the regular facts, a join for the irregular."""
    keys = _keys(view)
    columns = sorted({column for aggregate in aggregates for column in aggregate.columns})
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
        windows AS (SELECT _row, _t AS asked_at, {over} FROM everything WINDOW {windows}),
        regular AS (SELECT * FROM windows WHERE _row IS NOT NULL)"""
    if irregular:
        sql += _irregular_folds(view, aggregates, known_as_of)
    merged = [_merged(aggregate, i, irregular) for i, aggregate in enumerate(aggregates)]
    tail = "LEFT JOIN irregular ON regular._row = irregular._row" if irregular else ""
    return f"{sql} SELECT {', '.join(merged)} FROM regular {tail} ORDER BY regular._row"


_PARTS = {
    "count": ("count",),
    "rate": ("count",),
    "time_since_last": ("max",),
    "sum": ("sum",),
    "mean": ("count", "sum"),
    "min": ("min",),
    "max": ("max",),
}
"""Per function, the mergeable SQL aggregates that it is worked out from."""


def _whole(aggregate: Aggregate) -> str:
    """The function in one SQL aggregate, where nothing is to be merged."""
    if aggregate.function == "distinct":
        return f"count(DISTINCT {_value(aggregate)})"
    return f"avg({_value(aggregate)})" if aggregate.function == "mean" else _parts(aggregate)[0]


def _parts(aggregate: Aggregate) -> list[str]:
    return [f"{part}({_value(aggregate)})" for part in _PARTS[aggregate.function]]


def _value(aggregate: Aggregate) -> str:
    """SQL for what is aggregated: null in rows that are no facts, and where ``where=`` does not hold."""
    value = "_fact"
    if aggregate.function == "time_since_last":
        value = "CASE WHEN _fact = 1 THEN _t END"
    elif aggregate.column is not None:
        truth = aggregate.view.source.columns[aggregate.column].type == Type.BOOL
        value = f"{_name(aggregate.column)}::BIGINT" if truth else _name(aggregate.column)
    return value if aggregate.where is None else f"CASE WHEN {_name(aggregate.where)} THEN {value} END"


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
    """The answer from the regular part ``p`` and, where there is one, the irregular part ``q``."""
    function = aggregate.function
    value = f"p{i}_0"
    if irregular:
        pairs = [(f"p{i}_{j}", f"q{i}_{j}") for j in range(len(_PARTS[function]))]
        p, q = pairs[0]
        if function == "mean":
            count, total = (f"(coalesce({p}, 0) + coalesce({q}, 0))" for p, q in pairs)
            value = f"CASE WHEN {count} > 0 THEN {total}::DOUBLE / {count} END"
        elif function in ("count", "rate"):
            value = f"coalesce({p}, 0) + coalesce({q}, 0)"
        elif function == "sum":
            value = f"CASE WHEN {p} IS NULL THEN {q} ELSE {p} + coalesce({q}, 0) END"
        else:
            value = f"{'least' if function == 'min' else 'greatest'}({p}, {q})"
    if function == "rate":
        value = f"({value}) * {SECOND} / {aggregate.window_us}"
    elif function == "time_since_last":
        value = f"(regular.asked_at - {value}) / {SECOND}"
    return f"TRY_CAST(({value}) AS {_SQL[str(aggregate.type)]}) AS v{i}"


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
