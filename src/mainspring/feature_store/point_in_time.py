"""Point-in-time answers of one view, exact to the microsecond: joins in DuckDB, windows in NumPy.

A question is *settled* once all is known of the facts of its key that had happened by then: an ASOF join finds the newest of
them, and windows are slices of them, sorted by key. Only a fact known later than it happened, or an event id that occurs
more than once, unsettles the questions between its instant and the moment from which on nothing more changes about it. They
are answered one by one: the newest by a join with those facts, windows by the functions that answer online, as are
aggregations that slices do not know.

Every engine answers here: one machine all keys at once, Spark a share of the keys at a time. No answer depends on the facts of
another key, so that it is the same however the keys are shared out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mainspring.columns import Array, from_arrow, to_array, to_values
from mainspring.feature_engineering.facts import EventIds, State, ViewPlan, storable
from mainspring.feature_store.sliding import Slides, slides
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME
from mainspring.spec import Aggregate, Source, View


def name_questions(connection: duckdb.DuckDBPyConnection, questions: pa.Table, as_of: str) -> None:
    """Name the questions for `answer`; ``as_of`` is the column of their instants."""
    connection.register("given", questions)
    connection.execute(f"CREATE TEMP TABLE questions AS SELECT row_number() OVER () - 1 AS _row, {as_of} AS _t, * FROM given")


def name_facts(connection: duckdb.DuckDBPyConnection, source: Source, columns: Iterable[str], relation: str, where: str = "true") -> None:
    """Name a source's facts for `answer`: the rows of ``relation``, with their envelope and at least these columns."""
    names = ", ".join(quoted(column) for column in sorted(set(columns)))
    connection.execute(f"""
        CREATE TEMP VIEW {_table(source)} AS
        SELECT {EVENT_ID} AS _id, {EVENT_TIME} AS _t, {KNOWN_TIME} AS _n, {names} FROM {relation} WHERE {where}""")


def answer(connection: duckdb.DuckDBPyConnection, view: View, aggregates: Sequence[Aggregate], known_as_of: bool) -> Mapping[str, Array]:
    """The aggregates of one view for each of the questions named, as columns of shape ``(len(questions),)`` in their order.

    ``known_as_of`` counts a fact only from its known time on. A question with a null key gets the answer of a key without facts.
    """
    asked = ", ".join(f"{quoted(column)} AS _k{i}" for i, column in enumerate(view.on)) or "0 AS _k0"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT _row, _t, {asked} FROM questions")
    columns: dict[str, Array] = {}
    newest = [aggregate for aggregate in aggregates if aggregate.is_newest]
    if newest:
        columns |= _newest(connection, view, newest, known_as_of)
    folds = [aggregate for aggregate in aggregates if not aggregate.is_newest]
    if folds:
        columns |= _folds(connection, view, folds, known_as_of)
    return {aggregate.name: columns[aggregate.name] for aggregate in aggregates}


def _set_apart(connection: duckdb.DuckDBPyConnection, view: View, known_as_of: bool, odd: str, again: str) -> bool:
    """Name the view's facts for the settled questions ``facts``, all of them ``every``, and the others' rows ``unsettled``, if any.

    ``odd`` are the facts that may unsettle questions by when they are known, ``again`` chooses repeated ids that do. An id of
    these has in ``facts`` the version alone that is known last. Facts that unsettle have ``_irregular`` in ``every``.
    """
    table, keys = _table(view.source), _keys(view)
    named = ", ".join(f"{quoted(column)} AS _k{i}" for i, column in enumerate(view.columns)) or "0 AS _k0"
    present = " AND ".join(f"{quoted(column)} IS NOT NULL" for column in view.columns) or "true"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE again AS {again}")
    repeated = bool(_count(connection, "again"))
    apart = f"({odd}) OR _id IN (FROM again)" if repeated else odd
    found = repeated or _some(connection, table, odd)
    connection.execute(f"""
        CREATE OR REPLACE TEMP VIEW every AS SELECT *, {apart} AS _irregular, {named} FROM {table} WHERE {present};
        CREATE OR REPLACE TEMP VIEW facts AS FROM every""")
    if not found:
        return False
    happened = "_t" if view.source.kind == "table" else "_t + 1"
    sure = f"greatest(_n, {happened})" if known_as_of else happened
    spans = f"SELECT {keys}, _t, {sure} AS _sure FROM every WHERE _irregular"
    if repeated:
        connection.execute(f"""
            CREATE OR REPLACE TEMP VIEW facts AS FROM every WHERE _id NOT IN (FROM again) UNION ALL
            (FROM every WHERE _id IN (FROM again) QUALIFY row_number() OVER (PARTITION BY {keys}, _id ORDER BY _n DESC, _t DESC) = 1)""")
        spans = f"""
            {spans} AND _id NOT IN (FROM again) UNION ALL
            SELECT {keys}, _t, max({sure}) OVER (PARTITION BY {keys}, _id) FROM every WHERE _id IN (FROM again)"""
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE unsettled AS SELECT a._row
        FROM asked a ASOF JOIN (SELECT {keys}, _t, max(_sure) OVER (PARTITION BY {keys} ORDER BY _t) AS _sure FROM ({spans})) f
        ON {_matched(view)} AND a._t {_after(view)} f._t WHERE f._sure > a._t""")
    return bool(_count(connection, "unsettled"))


def _in_order(answer: pa.Table, aggregates: Sequence[Aggregate]) -> dict[str, Array]:
    """Columns ``v0``, ``v1``, ... in the order of ``_row``."""
    order = np.argsort(answer.column("_row").to_numpy())
    return {aggregate.name: from_arrow(answer.column(f"v{i}"), aggregate.type)[order] for i, aggregate in enumerate(aggregates)}


def _folds(connection: duckdb.DuckDBPyConnection, view: View, aggregates: Sequence[Aggregate], known_as_of: bool) -> dict[str, Array]:
    """Everything but newest values: slices of facts where these are enough, one by one otherwise."""
    late = "_n > _t" if known_as_of else "false"
    again = f"SELECT _id FROM {_table(view.source)} GROUP BY _id HAVING count(*) > 1"
    unsettled = _set_apart(connection, view, known_as_of, late, again)
    keys = _keys(view)
    present = " AND ".join(f"_k{i} IS NOT NULL" for i in range(_width(view)))
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE groups AS
        SELECT {keys}, row_number() OVER () - 1 AS _g FROM (SELECT DISTINCT {keys} FROM asked WHERE {present})""")
    columns = _slid(connection, view, [aggregate for aggregate in aggregates if slides(aggregate)])
    slid = tuple(aggregate for aggregate in aggregates if aggregate.name in columns)
    rest = tuple(aggregate for aggregate in aggregates if aggregate.name not in columns)
    if slid and unsettled:
        columns |= _replayed(connection, ViewPlan(view, slid), known_as_of, "SEMI JOIN unsettled USING (_row)", columns)
    if rest:
        columns |= _replayed(connection, ViewPlan(view, rest), known_as_of, "", {})
    return columns


def _slid(connection: duckdb.DuckDBPyConnection, view: View, aggregates: Sequence[Aggregate]) -> dict[str, Array]:
    """Answers from slices, right for the settled questions; an aggregate may be missing, if sums grow too large."""
    if not aggregates:
        return {}
    keys = _keys(view)
    names = sorted({column for aggregate in aggregates for column in aggregate.columns})
    widths = [aggregate.window_us for aggregate in aggregates]
    reach = "" if None in widths else f"WHERE _t >= (SELECT min(_t) FROM asked) - {max(width for width in widths if width is not None)}"
    asked = connection.sql(f"SELECT _row, _t, coalesce(_g, -1) AS _g FROM asked LEFT JOIN groups USING ({keys})").to_arrow_table()
    row, instants, groups = (asked.column(name).to_numpy() for name in ("_row", "_t", "_g"))
    order = np.argsort(row)
    chosen = f"SELECT _g, _t{''.join(f', {quoted(name)}' for name in names)} FROM facts JOIN groups USING ({keys}) {reach}"
    for ranked in ("", "ORDER BY _t, _n, _id"):
        facts = connection.sql(f"{chosen} {ranked}").to_arrow_table()
        times, fact_groups = facts.column("_t").to_numpy(), facts.column("_g").to_numpy()
        sliding = Slides(fact_groups, times, groups[order], instants[order], view.source.kind == "table")
        if not sliding.tied:
            break
    columns = {name: from_arrow(facts.column(name), view.source.columns[name].type) for name in names}
    answers = {one.name: sliding.answer(one, columns.get(one.column or ""), columns.get(one.where or "")) for one in aggregates}
    return {name: answer for name, answer in answers.items() if answer is not None}


def _replayed(
    connection: duckdb.DuckDBPyConnection, plan: ViewPlan, known_as_of: bool, only: str, others: Mapping[str, Array]
) -> dict[str, Array]:
    """Every key's facts as the state that online reads, asked the same way.

    ``only`` chooses questions; ``others`` are the columns that hold the answers of the rest.
    """
    keys = _keys(plan.view)
    names = "".join(f", {quoted(column)}" for column in plan.columns)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE replayed AS SELECT _row, _t, _g FROM (FROM asked {only}) LEFT JOIN groups USING ({keys})"
    )
    facts = connection.sql(f"""
        SELECT _g, _t, _n, _id, _irregular{names} FROM every JOIN groups USING ({keys}) SEMI JOIN replayed USING (_g)
        ORDER BY _g, _t, _n, _id""").to_arrow_table()
    states = _States(plan, facts)
    asked = connection.sql("SELECT _row, _t, _g FROM replayed ORDER BY _g, _row").to_arrow_table()
    rows, instants, groups = (asked.column(name).to_pylist() for name in ("_row", "_t", "_g"))
    answers: list[list[Any]] = []
    state, held = plan.empty(), None
    for instant, group in zip(instants, groups, strict=True):
        if group != held:
            state, held = states.of(group), group
        answers.append([value for value, _ in plan.read(state, instant, known_as_of=known_as_of)])
    columns: dict[str, Array] = {}
    for i, aggregate in enumerate(plan.aggregates):
        values = to_values(others[aggregate.name]) if others else [None] * len(rows)
        for row, answer in zip(rows, answers, strict=True):
            values[row] = answer[i]
        columns[aggregate.name] = to_array(values, aggregate.type)
    return columns


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
        late = bool((self._known[at] > self._times[at]).any())
        repeated = bool(self._irregular[at].any()) and len(set(self._ids[at])) < at.stop - at.start
        return State(self._times[at], self._known[at], ids, columns, self._empty.base, late, repeated)


def _newest(connection: duckdb.DuckDBPyConnection, view: View, aggregates: Sequence[Aggregate], known_as_of: bool) -> dict[str, Array]:
    """The newest values: an ASOF join, ties by rank; unsettled questions join regular facts so, the others one by one, and the latest wins.

    Among facts known when they happened the newest version of an event id is the latest one, so repeated ids need no care.
    """
    odd, table = "_n NOT BETWEEN _t - 1 AND _t", _table(view.source)
    again = f"SELECT _id FROM {table} SEMI JOIN (SELECT DISTINCT _id FROM {table} WHERE {odd}) USING (_id) GROUP BY _id HAVING count(*) > 1"
    some = _some(connection, table, odd)
    late = "_n > _t" if some and known_as_of else "false"
    unsettled = _set_apart(connection, view, known_as_of, late, again if some else f"SELECT _id FROM {table} LIMIT 0")
    if not unsettled:
        return _in_order(_latest(connection, view, aggregates, "FROM facts", "FROM asked"), aggregates)
    settled = _latest(connection, view, aggregates, "FROM facts", "FROM asked ANTI JOIN unsettled USING (_row)")
    others = f"""
        SELECT {_found(view, aggregates)}, f._n, f._id FROM (FROM asked SEMI JOIN unsettled USING (_row)) a
        JOIN every f ON {_matched(view)} WHERE f._irregular AND {_visible(view, known_as_of)}
        QUALIFY row_number() OVER (PARTITION BY a._row, f._id ORDER BY f._n DESC, f._t DESC) = 1"""
    rest = _latest(connection, view, aggregates, "FROM every WHERE NOT _irregular", "FROM asked SEMI JOIN unsettled USING (_row)", others)
    return _in_order(pa.concat_tables([settled, rest]), aggregates)


def _latest(
    connection: duckdb.DuckDBPyConnection, view: View, aggregates: Sequence[Aggregate], facts: str, asked: str, others: str = ""
) -> pa.Table:
    """The newest of ``facts`` for each question ``asked``, and of the pairs of both in ``others``: columns ``_row``, ``v0``, ``v1``, ..."""
    keys, found = _keys(view), _found(view, aggregates)
    joined = f"FROM ({asked}) a ASOF LEFT JOIN ({facts}) f ON {_matched(view)} AND a._t {_after(view)} f._t"
    rank = ", f._n, f._id" if others else ""
    connection.register("best", connection.sql(f"SELECT {found}{rank} {joined}").to_arrow_table())
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE ties AS
        SELECT {keys}, _t FROM ({facts}) SEMI JOIN best USING ({keys}, _t) GROUP BY {keys}, _t HAVING count(*) > 1""")
    best = "best"
    if others or _count(connection, "ties"):
        tied = f"FROM best a JOIN ties USING ({keys}, _t) JOIN ({facts}) f USING ({keys}, _t)"
        sides = [
            f"SELECT * {'' if others else ', NULL AS _n, NULL AS _id'} FROM best ANTI JOIN ties USING ({keys}, _t)",
            f"SELECT {found.replace('a._t AS asked_at', 'a.asked_at')}, f._n, f._id {tied}",
            *([others] if others else []),
        ]
        best = f"""(FROM ({" UNION ALL ".join(f"({one})" for one in sides)})
            QUALIFY row_number() OVER (PARTITION BY _row ORDER BY _t DESC NULLS LAST, _n DESC, _id DESC) = 1)"""
    chosen = [
        f"{quoted(aggregate.column or '')} AS v{i}"
        if aggregate.max_age_us is None
        else f"CASE WHEN _t >= asked_at - {aggregate.max_age_us} THEN {quoted(aggregate.column or '')} END AS v{i}"
        for i, aggregate in enumerate(aggregates)
    ]
    answers = connection.sql(f"SELECT _row, {', '.join(chosen)} FROM {best}").to_arrow_table()
    connection.unregister("best")
    return answers


def _found(view: View, aggregates: Sequence[Aggregate]) -> str:
    """The columns of a question ``a`` and of a fact ``f`` found for it."""
    names = ", ".join(dict.fromkeys(quoted(aggregate.column or "") for aggregate in aggregates))
    return f"a._row, a._t AS asked_at, {_prefixed('a', _keys(view))}, f._t, {_prefixed('f', names)}"


def _matched(view: View) -> str:
    return " AND ".join(f"a._k{i} = f._k{i}" for i in range(_width(view)))


def _after(view: View) -> str:
    return ">=" if view.source.kind == "table" else ">"


def _some(connection: duckdb.DuckDBPyConnection, table: str, condition: str) -> bool:
    return bool(_count(connection, f"(SELECT 1 FROM {table} WHERE {condition} LIMIT 1)"))


def _count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]
    return count


def _visible(view: View, known_as_of: bool) -> str:
    return f"a._t {_after(view)} f._t" + (" AND f._n <= a._t" if known_as_of else "")


def _keys(view: View) -> str:
    return ", ".join(f"_k{i}" for i in range(_width(view)))


def _width(view: View) -> int:
    return max(1, len(view.columns))


def _prefixed(table: str, names: str) -> str:
    return ", ".join(f"{table}.{name}" for name in names.split(", "))


def _table(source: Source) -> str:
    return quoted(f"source_{source.name}")


def quoted(column: str) -> str:
    """A column's name as SQL takes it."""
    return f'"{column}"'
