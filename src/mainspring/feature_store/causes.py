"""What made a served value differ: each request's values are told apart by status, version, code and earlier states of the log."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.columns import Array, from_arrow, to_values
from mainspring.feature_engineering.facts import EventIds, State, ViewPlan, storable
from mainspring.feature_store.keys import pack_key
from mainspring.feature_store.offline import OfflineStore
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME, Status
from mainspring.spec import Aggregate, Feature, Function, System, View
from mainspring.spec.evaluate import apply_functions
from mainspring.spec.versions import feature_versions

MOST_LATE = 100
"""How many of a key's newest facts in the log may be taken back in the search for the state that answered."""
RELATIVE = 1e-9
ABSOLUTE = 1e-12
Versions = Mapping[str, Mapping[str, str]]


class Cause(StrEnum):
    """Why a served value differs from its recomputation; the first that holds.

    - ``unavailable``: the declared default was served, to the feature or to what it reads, because the store did not answer.
    - ``code``: a function, given the inputs that were served, now gives another value than was served.
    - ``version``: the definition of the feature is another one than was in force when the value was served.
    - ``expired``: the newest fact was past ``max_age`` for one side and not for the other.
    - ``late event``: one earlier state of the log explains every value that the view served with it (the store had not applied
      what came after), or the facts as known by now do (it was known only after the answer).
    - ``unexplained``: none of these.

    A function that repeats what was served differs because of its inputs and has the cause of the first that differs.
    """

    UNAVAILABLE = "unavailable"
    CODE = "code"
    VERSION = "version"
    EXPIRED = "expired"
    LATE_EVENT = "late event"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs: ``served`` and ``recomputed`` with None for null, ``note`` what is known about its cause."""

    feature: str
    cause: Cause
    request_id: str
    as_of: int
    served: Any
    recomputed: Any
    note: str


Found = tuple[Cause, str]


def explain(
    system: System, predictions: pa.Table, offline: Mapping[str, Array], store: OfflineStore, versions: Versions | None
) -> Iterator[Difference]:
    """The differing values of ``predictions`` with their causes, request by request; ``offline`` are the recomputed columns.

    What each cause means is told by `Cause`. For aggregates every request costs a fold over its key's facts, and up to 100
    where the log is searched for an earlier state.
    """
    if not len(predictions):
        return
    requests = _Requests(system, predictions, offline, store, versions or {})
    for row in range(len(predictions)):
        causes: dict[str, Found] = {}
        for feature in (*(one for one in system.features if not isinstance(one, Function)), *system.functions):
            if not requests.differs(row, feature.name):
                continue
            cause, note = causes[feature.name] = requests.cause(row, feature, causes)
            recomputed, served = requests.offline[feature.name][row], requests.served[feature.name][row]
            yield Difference(feature.name, cause, requests.ids[row], requests.as_of[row], served, recomputed, note)


class _Requests:
    """Served and recomputed values of some requests as Python values, and the facts behind them."""

    def __init__(
        self, system: System, predictions: pa.Table, offline: Mapping[str, Array], store: OfflineStore, versions: Versions
    ) -> None:
        self._system = system
        self._now = feature_versions(system.features, system.request)
        self._then = [versions.get(declared, {}) for declared in predictions.column("system").to_pylist()]
        self.ids = predictions.column("request_id").to_pylist()
        self.as_of = predictions.column("as_of").to_pylist()
        logged = [one for one in system.features if f"feature.{one.name}" in predictions.column_names]
        columns = {one.name: from_arrow(predictions.column(f"feature.{one.name}"), one.type) for one in logged}
        request = {name: from_arrow(predictions.column(f"request.{name}"), field.type) for name, field in _fields(system)}
        self.served = {name: to_values(column) for name, column in columns.items()}
        self.offline = {name: to_values(offline[name]) for name in columns}
        self._status = {name: predictions.column(f"status.{name}").to_pylist() for name in columns}
        self._inputs = {**request, **columns}
        self._views = system.views
        self._histories = {view: _History(ViewPlan(view, aggregates), request, store) for view, aggregates in self._views.items()}
        self._explained: dict[tuple[View, int], str] = {}

    def differs(self, row: int, name: str) -> bool:
        """Whether a value was served and is not what is recomputed."""
        return name in self.served and self._status[name][row] is not None and not equal(self.served[name][row], self.offline[name][row])

    def cause(self, row: int, feature: Feature, causes: Mapping[str, Found]) -> Found:
        """The cause of one differing value; ``causes`` holds those of the features before it."""
        if self._status[feature.name][row] == Status.UNAVAILABLE:
            return Cause.UNAVAILABLE, "the online store did not answer in time or its row was damaged"
        if isinstance(feature, Function):
            return self._of_function(row, feature, causes)
        then = self._version(row, feature.name)
        if then != self._now[feature.name]:
            return Cause.VERSION, f"served by version {then}, declared now is {self._now[feature.name]}"
        return self._of_aggregate(row, feature) if isinstance(feature, Aggregate) else (Cause.UNEXPLAINED, "")

    def _of_function(self, row: int, function: Function, causes: Mapping[str, Found]) -> Found:
        inherited = [(name, *causes[name]) for name in function.inputs if name in causes]
        for name, cause, _ in inherited:
            if cause == Cause.UNAVAILABLE:
                return cause, f"its input {name} was unavailable"
        if not all(name in self._inputs for name in function.inputs):
            return Cause.CODE, "it reads features that were not served"
        given = {name: self._inputs[name][row : row + 1] for name in function.inputs}
        again = to_values(apply_functions([function], given)[function.name])[0]
        if not equal(again, self.served[function.name][row]):
            changed = self._version(row, function.name) != self._now[function.name]
            return Cause.CODE, "its code has changed" if changed else "its declared code is the same: something that it calls has changed"
        return (inherited[0][1], f"by its input {inherited[0][0]}") if inherited else (Cause.UNEXPLAINED, "")

    def _of_aggregate(self, row: int, aggregate: Aggregate) -> Found:
        history = self._histories[aggregate.view]
        expired = history.status(row, self.as_of[row], aggregate.name) == Status.EXPIRED
        if (self._status[aggregate.name][row] == Status.EXPIRED) != expired:
            sides = ("served", "recomputed") if not expired else ("recomputed", "served")
            return Cause.EXPIRED, f"older than {aggregate.max_age} when {sides[0]}, not when {sides[1]}"
        key = aggregate.view, row
        if key not in self._explained:
            self._explained[key] = history.explain(row, self.as_of[row], self._judged(row, aggregate.view))
        note = self._explained[key]
        return (Cause.LATE_EVENT, note) if note else (Cause.UNEXPLAINED, "")

    def _judged(self, row: int, view: View) -> dict[str, Any]:
        """What a view served to a request, less what was unavailable or is defined otherwise by now."""
        names = [one.name for one in self._views[view] if one.name in self.served]
        return {
            name: self.served[name][row]
            for name in names
            if self._status[name][row] not in (None, Status.UNAVAILABLE) and self._version(row, name) == self._now[name]
        }

    def _version(self, row: int, name: str) -> str:
        return self._then[row].get(name, self._now[name])


class _History:
    """The facts of one view for the keys of some requests; read when first needed."""

    def __init__(self, plan: ViewPlan, request: Mapping[str, Array], store: OfflineStore) -> None:
        self._plan = plan
        self._request = request
        self._store = store
        self._names = [one.name for one in plan.aggregates]
        self._rows: dict[bytes, list[int]] | None = None
        self._keys: dict[bytes, _Facts] = {}

    def status(self, row: int, as_of: int, name: str) -> Status:
        """The status that a store with all of the log would serve."""
        facts = self._of(row)
        return self._plan.read(facts.state(facts.near(self._plan, as_of)), as_of)[self._names.index(name)][1]

    def explain(self, row: int, as_of: int, served: Mapping[str, Any]) -> str:
        """Which state of the facts gives exactly ``served``; nothing if none of those that are looked at does."""
        facts = self._of(row)
        near = facts.near(self._plan, as_of)
        if self._gives(facts.state(near), as_of, served, known_as_of=False):
            return "it counts what was known only after the request's instant"
        near = near[facts.whole.known_times[near] <= as_of]
        arrivals = facts.arrival[near]
        for missing, arrived in enumerate(np.sort(arrivals)[::-1][:MOST_LATE].tolist(), 1):
            if self._gives(facts.state(near[arrivals < arrived]), as_of, served, known_as_of=True):
                return f"the last {missing} facts of '{self._plan.view.source.name}' in the log had not been applied"
        return ""

    def _gives(self, state: State, as_of: int, served: Mapping[str, Any], *, known_as_of: bool) -> bool:
        answers = dict(zip(self._names, self._plan.read(state, as_of, known_as_of=known_as_of), strict=True))
        return all(equal(served[name], answers[name][0]) for name in served)

    def _of(self, row: int) -> _Facts:
        if self._rows is None:
            self._table = self._store.facts(self._plan.view, self._request)
            self._rows = _by_key(self._plan.view, self._table)
        key = pack_key([to_values(self._request[name][row : row + 1])[0] for name in self._plan.view.on])
        if key not in self._keys:
            self._keys[key] = _Facts.of(self._plan, self._table, np.array(self._rows.get(key, []), dtype=np.int64))
        return self._keys[key]


@dataclass(frozen=True, slots=True)
class _Facts:
    """All facts of one key in winning order; ``arrival`` of shape ``(n,)`` numbers them in the order of the log."""

    whole: State
    arrival: Array

    @classmethod
    def of(cls, plan: ViewPlan, table: pa.Table, rows: Array) -> _Facts:
        """The facts in some rows of a table that is in the order of the log."""
        facts = table.take(rows)
        order = pc.sort_indices(facts, sort_keys=[(name, "ascending") for name in (EVENT_TIME, KNOWN_TIME, EVENT_ID)]).to_numpy()
        facts = facts.take(order)
        times, known = (np.asarray(facts.column(name).cast(pa.int64()).to_numpy()) for name in (EVENT_TIME, KNOWN_TIME))
        ids = facts.column(EVENT_ID).to_pylist()
        columns = [storable(from_arrow(facts.column(name), type_), type_) for name, type_ in zip(plan.columns, plan.types, strict=True)]
        late, repeated = bool((known > times).any()), len(set(ids)) != len(ids)
        return cls(State(times, known, EventIds.of(ids), columns, plan.empty().base, late, repeated), rows[order])

    def near(self, plan: ViewPlan, as_of: int) -> Array:
        """The facts that an answer at ``as_of`` may count, and some before them, as rows of `whole`."""
        times = self.whole.event_times
        end = int(times.searchsorted(as_of, "right"))
        reach = 0 if plan.lifetimes else int(times.searchsorted(as_of - plan.retention, "left"))
        return np.arange(max(0, min(reach, end - 2 * MOST_LATE)), end)

    def state(self, rows: Array) -> State:
        """The state of a store that holds these facts alone."""
        whole = self.whole
        columns = [column[rows] for column in whole.columns]
        ids = whole.event_ids.take(rows)
        return State(whole.event_times[rows], whole.known_times[rows], ids, columns, whole.base, whole.late, whole.repeated)


def equal(left: Any, right: Any) -> bool:
    """Whether two values agree, floats within 1e-9 relative, also inside lists and maps."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool(left == right)


def _by_key(view: View, facts: pa.Table) -> dict[bytes, list[int]]:
    rows: dict[bytes, list[int]] = {}
    keys = zip(*(facts.column(name).to_pylist() for name in view.columns), strict=True) if view.columns else [()] * len(facts)
    for row, key in enumerate(keys):
        rows.setdefault(pack_key(key), []).append(row)
    return rows


def _fields(system: System) -> list[tuple[str, Any]]:
    return [(name, system.request.columns[name]) for name in system.request.columns.names]
