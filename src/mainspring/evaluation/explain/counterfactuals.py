"""What would have to change in one row for another answer: few and small changes to values that occur, shown by predicting again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.errors import DeclarationError
from mainspring.evaluation.explain.changes import Constraints, check_names
from mainspring.evaluation.explain.importance import Columns, Floats
from mainspring.evaluation.explain.search import Codes, Search, apart
from mainspring.models.tabular import TabularModel
from mainspring.spec import Function


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

    def reached(self, predicted: Sequence[float]) -> bool:
        """Whether the answer to one row, one number or one per class, is there."""
        return bool(self.gap(np.array(predicted) if len(predicted) == 1 else np.array([predicted]))[0] < 0)


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
    another's, so that the answers differ in kind. A beam search over one, two, ... changes, each level one batch, and where it finds
    none a search back from rows that are there; then each change is made as small as the target allows, or taken back. Nothing is
    drawn: the same call gives the same answers.
    Sources: Wachter, Mittelstadt, Russell, "Counterfactual explanations without opening the black box", 2018 (distance); Mothilal, Sharma,
    Tan, "Explaining machine learning classifiers through diverse counterfactual explanations", 2020 (diversity, sparsity, constraints).

    Raises:
        DeclarationError: a feature is not known, or constrained as a number and none; or none may change.
        ServingError: the model cannot answer the row as it is.
    """
    if not changeable:
        raise DeclarationError("Counterfactuals, changeable: no feature may change. Name one at least.")
    limits = constraints or Constraints()
    check_names(sorted(limits.names), {*row, *(function.name for function in functions)}, "constraints")
    check_names(changeable, observed.keys() & row.keys(), "changeable")
    search = Search(model, row, target.gap, observed, changeable, functions, limits)
    start = np.zeros((1, len(changeable)), dtype=np.int64)
    if search.gaps(start)[0] < 0:
        return Counterfactuals(search.asked(start[0]), True, (), 1)
    found = search.beam(most, answers)
    reached = apart(search.distances, found if len(found) else search.from_rows(observed, most))[: 2 * answers]
    told = [_told(search, row, changeable, one) for one in apart(search.distances, search.smaller(reached))]
    shown = [one for one in told if target.reached(one.predicted)]
    return Counterfactuals(search.asked(start[0]), False, tuple(shown[:answers]), search.tried)


def _told(search: Search, row: Mapping[str, Any], names: Sequence[str], code: Codes) -> Counterfactual:
    """A candidate in words."""
    columns = search.columns(code[None, :])
    changes = [Change(names[i], row[names[i]], columns[names[i]].tolist()[0]) for i in np.flatnonzero(code).tolist()]
    pairs = [(name, before.tolist()[0], columns[name].tolist()[0]) for name, before in search.computed.items()]
    follows = [Change(name, *(None if one != one else one for one in pair)) for name, *pair in pairs if not _same(*pair)]
    return Counterfactual(tuple(changes), tuple(follows), search.asked(code), float(search.distances(code[None, :])[0]))


def _same(first: Any, second: Any) -> bool:
    return bool(first == second or (first != first and second != second))


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
