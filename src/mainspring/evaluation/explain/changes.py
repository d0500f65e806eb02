"""What of a request may be changed, to which values, and what follows from it: features that are computed are computed again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.evaluation.explain.importance import Columns, Floats, Predict
from mainspring.schema import Type
from mainspring.spec import Function, System
from mainspring.spec.evaluate import apply_functions

Bools = npt.NDArray[np.bool_]
CHANGEABLE = (Type.STR, Type.INT, Type.FLOAT, Type.BOOL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a change must hold to, by feature; the features may be computed ones.

    ``fixed`` stay as they are; ``bounds`` are the least and the most (None for none); ``increase`` and ``decrease`` may change in one
    direction only; ``steps`` are units of which a number changes by a whole multiple; ``allowed`` are the only values to change to.
    """

    fixed: Sequence[str] = ()
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    increase: Sequence[str] = ()
    decrease: Sequence[str] = ()
    steps: Mapping[str, float] = field(default_factory=dict)
    allowed: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The features that are constrained."""
        return {*self.fixed, *self.bounds, *self.increase, *self.decrease, *self.steps, *self.allowed}

    def permits(self, name: str, before: Any, values: Array) -> Bools:
        """Which of the ``values`` the feature may have instead of ``before`` (None for missing); ``before`` itself it always may."""
        permitted: Bools = np.ones(len(values), dtype=np.bool_)
        if name not in self.names:
            return permitted
        same: Bools = np.array([value == before or (before is None and _missing(value)) for value in values.tolist()], dtype=np.bool_)
        if name in self.fixed:
            return same
        if name in self.allowed:
            permitted &= np.array([value in self.allowed[name] for value in values.tolist()], dtype=np.bool_)
        if name in self.bounds or name in self.increase or name in self.decrease or name in self.steps:
            permitted &= self._numbers_permitted(name, before, values)
        return same | permitted

    def _numbers_permitted(self, name: str, before: Any, values: Array) -> Bools:
        try:
            numbers = np.array([np.nan if value is None else value for value in values.tolist()], dtype=np.float64)
        except ValueError:
            raise DeclarationError(f"Constraints: '{name}' is no number. Name it in fixed= or allowed= instead.") from None
        start = np.nan if before is None else float(before)
        low, high = (np.nan if end is None else end for end in self.bounds.get(name, (None, None)))
        permitted: Bools = ~((numbers < low) | (numbers > high) | np.isnan(numbers))
        if name in self.increase:
            permitted &= numbers >= start
        if name in self.decrease:
            permitted &= numbers <= start
        if name in self.steps:
            steps = (numbers - start) / self.steps[name]
            permitted &= np.abs(steps - np.round(steps)) < 1e-9
        return permitted


def changeable(system: System) -> tuple[str, ...]:
    """The columns that can be changed by themselves and that the model's answer hangs on, directly or through functions.

    These are columns of the request and aggregates. Functions are not: they follow. Nor are the request's id, its instants, and what
    views are looked up by: with another key or at another instant the aggregates would be others.
    """
    functions = {function.name: function for function in (*system.request.derive, *system.functions)}
    types = {name: system.request.columns[name].type for name in system.request.columns.names}
    types |= {feature.name: feature.type for feature in system.features}
    keys = _read_by(functions, {on for aggregate in system.aggregates for on in aggregate.view.on})
    read = _read_by(functions, {feature.name for feature in system.inputs}) - keys - {system.request.event_id}
    return tuple(name for name in types if name in read and name not in functions and types[name] in CHANGEABLE)


def functions_of(system: System) -> tuple[Function, ...]:
    """All that is computed from the request, in order: derived columns, then feature functions."""
    return (*system.request.derive, *system.functions)


def recomputing(predict: Predict, functions: Sequence[Function]) -> Predict:
    """The answers of ``predict`` once the functions were computed again from the columns that they read."""

    def predicted(columns: Columns) -> Floats:
        return predict({**columns, **apply_functions(functions, columns)})

    return predicted if functions else predict


def check_names(names: Sequence[str], known: Collection[str], what: str) -> None:
    """Refuse names that are not known.

    Raises:
        DeclarationError: a name is not; ``what`` says what it was meant to be.
    """
    for name in names:
        if name not in known:
            raise DeclarationError(f"Counterfactuals, {what}: there is no feature '{name}'.{did_you_mean(name, known)}")


def _read_by(functions: Mapping[str, Function], names: set[str]) -> set[str]:
    """These names and all that is read for them, directly or not."""
    found, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += functions[name].inputs if name in functions else ()
    return found


def _missing(value: Any) -> bool:
    return value is None or value != value
