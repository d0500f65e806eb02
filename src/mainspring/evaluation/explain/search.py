"""The search for changes of one row that reach a target: candidates in batches, each a row of codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.evaluation.explain.changes import Bools, Constraints
from mainspring.evaluation.explain.dependence import as_column, has_categories, numbers_of
from mainspring.evaluation.explain.importance import Columns, Floats
from mainspring.models.tabular import TabularModel
from mainspring.spec import Function
from mainspring.spec.evaluate import apply_functions

Codes = npt.NDArray[np.int64]
Gap = Callable[[Floats], Floats]
OBSERVED, COARSE, FINE = 2_000, 12, 128
"""Rows whose values are taken; values of a feature that are tried; and those by which a change of a number is then made smaller."""
BEAM, ALIKE = 8, 2
"""Candidates that are gone on from, and how many of them change the same features."""


class Search:
    """Candidates as rows of codes: 0 leaves a feature as it is, any other number names one of the values that it may have."""

    def __init__(
        self, model: TabularModel, row: Mapping[str, Any], gap: Gap, observed: Columns, names: Sequence[str],
        functions: Sequence[Function], limits: Constraints,
    ) -> None:  # fmt: skip
        self._model, self._row, self._gap, self._functions, self._limits, self._names = model, row, gap, functions, limits, names
        self._one = {name: as_column([value], observed[name].dtype if name in observed else object) for name, value in row.items()}
        self.computed = apply_functions(functions, self._one)
        self._values: list[Array] = []
        self._costs: list[Floats] = []
        self._coarse: list[Codes] = []
        for name in names:
            values, costs, coarse = _values(name, observed[name], row[name], limits)
            self._values.append(_joined(self._one[name], values))
            self._costs.append(np.concatenate([[0.0], costs]))
            self._coarse.append(coarse + 1)
        self.tried = 0

    def columns(self, codes: Codes) -> dict[str, Array]:
        """The columns of the candidates, what is computed included."""
        changed = {name: values[codes[:, i]] for i, (name, values) in enumerate(zip(self._names, self._values, strict=True))}
        kept = {name: np.repeat(column, len(codes)) for name, column in self._one.items() if name not in changed}
        columns = {**kept, **changed}
        return {**columns, **apply_functions(self._functions, columns)}

    def gaps(self, codes: Codes) -> Floats:
        """How far each candidate is from the target, below 0 where it is there; infinite where what is computed breaks a constraint."""
        self.tried += len(codes)
        columns = self.columns(codes)
        gaps = self._gap(self._model.predict(columns))
        for name in self.computed:
            if name in self._limits.names:
                before = self.computed[name].tolist()[0]
                gaps = np.where(self._limits.permits(name, None if before != before else before, columns[name]), gaps, np.inf)
        return gaps

    def distances(self, codes: Codes) -> Floats:
        """How far each candidate is from the row as it is."""
        return np.asarray(sum((costs[codes[:, i]] for i, costs in enumerate(self._costs)), np.zeros(len(codes))))

    def beam(self, most: int, answers: int) -> Codes:
        """Candidates that have reached the target, those of fewest changes; no search beyond the level with enough of them."""
        open_, found = np.zeros((1, len(self._names)), dtype=np.int64), np.empty((0, len(self._names)), dtype=np.int64)
        for _ in range(most):
            codes = _new(self._further(open_), found)
            if not len(codes):
                break
            gaps = self.gaps(codes)
            found = np.concatenate([found, codes[gaps < 0]])
            if len(apart(self.distances, found)) >= answers:
                break
            left = np.flatnonzero((gaps >= 0) & np.isfinite(gaps))
            best = left[np.lexsort((self.distances(codes[left]), gaps[left]))]
            open_ = codes[_few_of_each(codes[best] > 0, best)]
        return found

    def from_rows(self, observed: Columns, most: int) -> Codes:
        """Candidates made after rows that have reached the target, every change taken back that can be: those of at most ``most``.

        It finds what no change brings nearer by itself. Source: Brughmans, Leyman, Martens, "NICE: an algorithm for nearest instance
        counterfactual explanations", 2023.
        """
        codes = np.stack(
            [_nearest(values, _thinned(observed[name])) for name, values in zip(self._names, self._values, strict=True)], axis=1
        )
        there = codes[self.gaps(codes) < 0]
        open_, found = list(there[np.argsort(self.distances(there), kind="stable")[:BEAM]]), [codes[:0]]
        while open_:
            backs = self._reached([self._taken_back(one) for one in open_])
            found += [one[None, :] for one, back in zip(open_, backs, strict=True) if not len(back)]
            open_ = [back[np.argmin(self.distances(back))] for back in backs if len(back)]
        ends = np.concatenate(found)
        few: Codes = ends[(ends > 0).sum(axis=1) <= most]
        return few

    def smaller(self, found: Codes) -> Codes:
        """Each with each of its changes as small as can be while the target is reached, or taken back where it can be; largest first."""
        before, found = found, found.copy()
        changed = [sorted(np.flatnonzero(one).tolist(), key=lambda i: -self._costs[i][one[i]]) for one in found]
        for turn in range(max(map(len, changed), default=0)):
            rows = [row for row, places in enumerate(changed) if len(places) > turn]
            reached = self._reached([self._nearer(found[row], changed[row][turn]) for row in rows])
            for row, codes in zip(rows, reached, strict=True):
                found[row] = codes[np.argmin(self.distances(codes))]
        return found if np.array_equal(found, before) else self.smaller(found)

    def asked(self, code: Codes) -> tuple[float, ...]:
        """What the model answers to one candidate, asked as a request is."""
        columns = self.columns(code[None, :])
        if self._model.predictor.outputs > 1:
            return tuple(self._model.predict(columns)[0].tolist())
        values = [columns[name].tolist()[0] for name in self._model.encoder.names]
        return (self._model.predict_row([None if value != value else value for value in values])[0],)

    def _further(self, codes: Codes) -> Codes:
        """Every candidate with every further change of a feature that it leaves as it is."""
        made = [codes[:0]]
        for i, values in enumerate(self._coarse):
            rows = codes[codes[:, i] == 0]
            wider = np.repeat(rows, len(values), axis=0)
            wider[:, i] = np.tile(values, len(rows))
            made.append(wider)
        return np.unique(np.concatenate(made), axis=0)

    def _reached(self, tries: list[Codes]) -> list[Codes]:
        """Of each set of candidates those that have reached the target, all asked together."""
        reached = self.gaps(np.concatenate(tries)) < 0
        ends = np.cumsum([len(one) for one in tries])[:-1]
        return [codes[there] for codes, there in zip(tries, np.split(reached, ends), strict=True)]

    def _taken_back(self, code: Codes) -> Codes:
        """The candidate without one of its changes, for each of them."""
        places = np.flatnonzero(code)
        made = np.repeat(code[None, :], len(places), axis=0)
        made[np.arange(len(places)), places] = 0
        return made

    def _nearer(self, code: Codes, place: int) -> Codes:
        """The candidate with all smaller changes of one feature, none and its own among them."""
        costs = self._costs[place]
        nearer = np.append(np.flatnonzero(costs < costs[code[place]]), code[place])
        made = np.repeat(code[None, :], len(nearer), axis=0)
        made[:, place] = nearer
        return made


def _values(name: str, column: Array, before: Any, limits: Constraints) -> tuple[Array, Floats, Codes]:
    """Values that the feature may have instead, nearest first, what each costs, and the places of those to try at first."""
    thinned = _thinned(column)
    if has_categories(thinned):
        counts = Counter(value for value in thinned.tolist() if value is not None and value != before)
        ordered = as_column(sorted(counts, key=lambda value: (-counts[value], str(value))), column.dtype)
        first = ordered[limits.permits(name, before, ordered)][:COARSE]
        return first, np.ones(len(first)), np.arange(len(first))
    numbers = np.sort(numbers_of(thinned))
    numbers = numbers[~np.isnan(numbers)]
    spread = _spread(numbers)
    distinct, counted = np.unique(numbers, return_counts=True)
    kept = limits.permits(name, before, distinct) & (distinct != (np.nan if before is None else before))
    values, reach = distinct[kept], np.cumsum(counted[kept])
    if len(values) > FINE:
        values = values[np.unique(np.searchsorted(reach, np.linspace(1, reach[-1], FINE)))]
    costs = np.ones(len(values)) if before is None else np.abs(values - before) / spread
    order = np.argsort(costs, kind="stable")
    coarse = np.unique(np.linspace(0, len(values) - 1, min(COARSE, len(values))).astype(np.int64))
    return as_column(values[order].tolist(), column.dtype), costs[order], coarse


def _thinned(column: Array) -> Array:
    return column[np.linspace(0, len(column) - 1, min(OBSERVED, len(column))).astype(np.int64)]


def _nearest(values: Array, column: Array) -> Codes:
    """For each row of a column the number of the value that is nearest to its own; 0, no change, where there is none."""
    if has_categories(values):
        place = {value: number for number, value in reversed(list(enumerate(values.tolist())))}
        return np.array([place.get(value, 0) for value in column.tolist()], dtype=np.int64)
    apart = np.abs(numbers_of(column)[:, None] - numbers_of(values)[None, :])
    return np.asarray(np.argmin(np.where(np.isnan(apart), np.inf, apart), axis=1), dtype=np.int64)


def _spread(numbers: Floats) -> float:
    """The median absolute deviation; where more than half of the values are the same, the standard deviation, or 1."""
    if not len(numbers):
        return 1.0
    return float(np.median(np.abs(numbers - np.median(numbers)))) or float(numbers.std()) or 1.0


def _joined(one: Array, values: Array) -> Array:
    return np.concatenate([one.astype(object), values.astype(object)]) if object in (one.dtype, values.dtype) else np.append(one, values)


def _new(codes: Codes, found: Codes) -> Codes:
    """The candidates that do not change all that one found already changes."""
    changed, enough = (codes > 0).astype(np.int64), np.unique(found > 0, axis=0).astype(np.int64)
    new: Codes = codes[~(changed @ enough.T == enough.sum(axis=1)).any(axis=1)]
    return new


def apart(distances: Callable[[Codes], Floats], found: Codes) -> Codes:
    """The nearest for each set of changed features, fewest changes first, without those that change all that another does."""
    order = np.lexsort((distances(found), (found > 0).sum(axis=1)))
    _, first = np.unique(found[order] > 0, axis=0, return_index=True)
    kept = found[:0]
    for one in found[order][np.sort(first)]:
        kept = np.concatenate([kept, _new(one[None, :], kept)])
    return kept


def _few_of_each(changed: Bools, order: Codes) -> Codes:
    """The first of ``order`` of which at most `ALIKE` change the same features, `BEAM` in all."""
    seen: Counter[bytes] = Counter()
    taken: list[int] = []
    for pattern, one in zip(changed, order.tolist(), strict=True):
        if len(taken) == BEAM:
            break
        if seen[pattern.tobytes()] < ALIKE:
            seen[pattern.tobytes()] += 1
            taken.append(one)
    return np.array(taken, dtype=np.int64)
