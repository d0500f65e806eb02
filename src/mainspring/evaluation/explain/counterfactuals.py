"""What would have to change in one row for another answer: few and small changes to values that occur, shown by predicting again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import DeclarationError
from mainspring.evaluation.explain.changes import Bools, Constraints, check_names
from mainspring.evaluation.explain.dependence import as_column, numbers_of
from mainspring.evaluation.explain.importance import Columns, Floats
from mainspring.models.tabular import TabularModel
from mainspring.spec import Function
from mainspring.spec.evaluate import apply_functions

Codes = npt.NDArray[np.int64]
OBSERVED, COARSE, FINE = 2_000, 16, 128
"""Rows whose values are taken; values of a feature that are tried; and those by which a change of a number is then made smaller."""
BEAM, ALIKE = 10, 2
"""Candidates that are gone on from, and how many of them change the same features."""


@dataclass(frozen=True, slots=True)
class Target:
    """The answer that is wanted: ``below`` or ``above`` a value, or the class number ``to``. One of them is given."""

    below: float | None = None
    above: float | None = None
    to: int | None = None

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.below, self.above, self.to)) != 1:
            raise DeclarationError(f"{self}: give one of below, above and to.")

    def gap(self, predicted: Floats) -> Floats:
        """How far answers of shape ``(n,)`` or ``(n, classes)`` are from the target: below 0 where they have reached it."""
        if self.below is not None:
            return predicted - self.below
        if self.above is not None:
            return self.above - predicted
        assert self.to is not None
        if predicted.ndim == 1:
            return (1 - 2 * self.to) * (predicted - 0.5)
        others = np.delete(predicted, self.to, axis=1).max(axis=1)
        return np.asarray(others - predicted[:, self.to])


@dataclass(frozen=True, slots=True)
class Change:
    """A feature with another value; None is missing."""

    feature: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.feature} {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Changes that lead to the target: all are needed, and ``follows`` is what was computed anew.

    ``predicted`` of shape ``(outputs,)`` is what the model answers to the changed row, asked for it alone. ``distance`` adds up the
    changes: of a number in median absolute deviations, of anything else 1.
    """

    changes: tuple[Change, ...]
    follows: tuple[Change, ...]
    predicted: tuple[float, ...]
    distance: float

    def __str__(self) -> str:
        return ", ".join(map(str, self.changes))


@dataclass(frozen=True, slots=True)
class Counterfactuals:
    """What the model answers to the row as it is, the answers found, and how many rows were tried.

    Nothing ``found`` says that none of those rows reached the target, not that none could; ``reached`` is whether the row itself has.
    """

    predicted: tuple[float, ...]
    reached: bool
    found: tuple[Counterfactual, ...]
    tried: int


def counterfactuals(
    model: TabularModel, row: Mapping[str, Any], target: Target, observed: Columns, changeable: Sequence[str], *,
    functions: Sequence[Function] = (), constraints: Constraints | None = None, most: int = 3, answers: int = 4,
) -> Counterfactuals:  # fmt: skip
    """At most ``answers`` sets of at most ``most`` changes under which the model's answer reaches the target, fewest and smallest first.

    ``row`` has a value, None for missing, for every column that the model and the functions read; ``changeable`` are those that may
    change, to values of (2,000 evenly taken rows of) ``observed``; all functions are computed again. No answer's features are among
    another's, so that the answers differ in kind. A beam search over one, two, ... changes, each level one batch; then each change is
    made as small as the target allows, or taken back. Nothing is drawn: the same call gives the same answers.
    Sources: Wachter, Mittelstadt, Russell, "Counterfactual explanations without opening the black box", 2018 (distance); Mothilal, Sharma,
    Tan, "Explaining machine learning classifiers through diverse counterfactual explanations", 2020 (diversity, sparsity, constraints).

    Raises:
        DeclarationError: a feature is not known, or constrained as a number and none.
        ServingError: the model cannot answer the row as it is.
    """
    limits = constraints or Constraints()
    check_names(sorted(limits.names), {*row, *(function.name for function in functions)}, "constraints")
    check_names(changeable, observed.keys() & row.keys(), "changeable")
    search = _Search(model, row, target, observed, changeable, functions, limits)
    start = np.zeros((1, len(changeable)), dtype=np.int64)
    if search.gaps(start)[0] < 0:
        return Counterfactuals(search.asked(start[0]), True, (), 1)
    reached = _apart(search.distances, search.beam(most, answers))[: 2 * answers]
    nearest = _apart(search.distances, search.smaller(reached))[:answers]
    return Counterfactuals(search.asked(start[0]), False, tuple(search.told(one) for one in nearest), search.tried)


class _Search:
    """Candidates as rows of codes: 0 leaves a feature as it is, any other number names one of the values that it may have."""

    def __init__(
        self, model: TabularModel, row: Mapping[str, Any], target: Target, observed: Columns, names: Sequence[str],
        functions: Sequence[Function], limits: Constraints,
    ) -> None:  # fmt: skip
        self._model, self._row, self._target, self._functions, self._limits, self._names = model, row, target, functions, limits, names
        self._one = {name: as_column([value], observed[name].dtype if name in observed else object) for name, value in row.items()}
        self._before = apply_functions(functions, self._one)
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
        gaps = self._target.gap(self._model.predict(columns))
        for name in self._before:
            if name in self._limits.names:
                before = self._before[name].tolist()[0]
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
            if len(_apart(self.distances, found)) >= answers:
                break
            left = np.flatnonzero((gaps >= 0) & np.isfinite(gaps))
            best = left[np.lexsort((self.distances(codes[left]), gaps[left]))]
            open_ = codes[_few_of_each(codes[best] > 0, best)]
        return found

    def smaller(self, found: Codes) -> Codes:
        """Each with each of its changes as small as can be while the target is reached, or taken back where it can be; largest first."""
        found = found.copy()
        changed = [sorted(np.flatnonzero(one).tolist(), key=lambda i: -self._costs[i][one[i]]) for one in found]
        for turn in range(max(map(len, changed), default=0)):
            rows = [row for row, places in enumerate(changed) if len(places) > turn]
            tries = [self._nearer(found[row], changed[row][turn]) for row in rows]
            reached = self.gaps(np.concatenate(tries)) < 0
            ends = np.cumsum([len(one) for one in tries])[:-1]
            for row, codes, there in zip(rows, tries, np.split(reached, ends), strict=True):
                found[row] = codes[there][np.argmin(self.distances(codes[there]))]
        return found

    def asked(self, code: Codes) -> tuple[float, ...]:
        """What the model answers to one candidate, asked as a request is."""
        columns = self.columns(code[None, :])
        if self._model.predictor.outputs > 1:
            return tuple(self._model.predict(columns)[0].tolist())
        values = [columns[name].tolist()[0] for name in self._model.encoder.names]
        return (self._model.predict_row([None if value != value else value for value in values])[0],)

    def told(self, code: Codes) -> Counterfactual:
        """A candidate in words."""
        columns = self.columns(code[None, :])
        changes = [
            Change(self._names[i], self._row[self._names[i]], columns[self._names[i]].tolist()[0]) for i in np.flatnonzero(code).tolist()
        ]
        pairs = [(name, before.tolist()[0], columns[name].tolist()[0]) for name, before in self._before.items()]
        follows = [Change(name, *(None if one != one else one for one in pair)) for name, *pair in pairs if not _same(*pair)]
        return Counterfactual(tuple(changes), tuple(follows), self.asked(code), float(self.distances(code[None, :])[0]))

    def _further(self, codes: Codes) -> Codes:
        """Every candidate with every further change of a feature that it leaves as it is."""
        made = [codes[:0]]
        for i, values in enumerate(self._coarse):
            rows = codes[codes[:, i] == 0]
            wider = np.repeat(rows, len(values), axis=0)
            wider[:, i] = np.tile(values, len(rows))
            made.append(wider)
        return np.unique(np.concatenate(made), axis=0)

    def _nearer(self, code: Codes, place: int) -> Codes:
        """The candidate with all smaller changes of one feature, none and its own among them."""
        costs = self._costs[place]
        nearer = np.append(np.flatnonzero(costs < costs[code[place]]), code[place])
        made = np.repeat(code[None, :], len(nearer), axis=0)
        made[:, place] = nearer
        return made


def _values(name: str, column: Array, before: Any, limits: Constraints) -> tuple[Array, Floats, Codes]:
    """Values that the feature may have instead, nearest first, what each costs, and the places of those to try at first."""
    thinned = column[np.linspace(0, len(column) - 1, min(OBSERVED, len(column))).astype(np.int64)]
    if thinned.dtype == np.bool_ or any(isinstance(value, str | bool) for value in (thinned if thinned.dtype == object else ())):
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


def _apart(distances: Callable[[Codes], Floats], found: Codes) -> Codes:
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


def _same(first: Any, second: Any) -> bool:
    return bool(first == second or (first != first and second != second))


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
