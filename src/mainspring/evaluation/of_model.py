"""The evaluation of a System's model: its answers, those of its baselines and its champion, on the same held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.evaluation.baselines import Rows, Truth, predict_baselines
from mainspring.evaluation.evaluate import Held, evaluate
from mainspring.evaluation.measuring import Answers
from mainspring.evaluation.record import Evaluation, Input
from mainspring.models.baselines import GroupMedians, LinearLine
from mainspring.models.tabular import TabularModel
from mainspring.schema import Type
from mainspring.spec import System

Floats = npt.NDArray[np.float64]

SEARCHED = 12
"""So many of the most important features are searched for slices, besides the declared ones."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fitted model with the baselines that were fitted on the same rows."""

    model: TabularModel
    baselines: Mapping[str, LinearLine | GroupMedians]


def evaluate_model(
    system: System, candidate: Candidate, rows: Rows, truth: Floats, history: Truth, *, others: Mapping[str, TabularModel] | None = None,
    split: Mapping[str, Any] | None = None, latency: Mapping[str, float] | None = None,
) -> Evaluation:  # fmt: skip
    """Evaluate a model on held-out ``rows`` with their ``truth``, against its baselines and ``others`` by name (``champion``).

    ``history`` is what a `RecentRatio` looks back on. Declared slices are the groups of the error monitor.
    """
    model = candidate.model
    rivals = predict_baselines(system, candidate.baselines, rows, history)
    rivals |= {name: other.predict(rows.columns) for name, other in (others or {}).items()}
    by = declared_slices(system)
    names = list(dict.fromkeys((*by, *important(model)[:SEARCHED])))
    needs = system.requirements
    held = Held(truth, rows.as_of, {name: rows.columns[name] for name in names}, by)
    found = evaluate(
        system.model.task,
        held,
        answers_of(model, rows.columns),
        rivals,
        qualities=needs.quality,
        quantile=predicted_quantile(system),
        costs=needs.costs,
        split=split,
        latency=latency,
    )
    return replace(found, inputs=tuple(inputs_of(model, rows.columns)))


def answers_of(model: TabularModel, columns: Mapping[str, npt.NDArray[Any]]) -> Answers:
    """The model's answers with their interval, where it gives one."""
    return Answers(*model.predict_bounds(columns))


def important(model: TabularModel) -> list[str]:
    """The model's columns, the most important first; in their order where its learner does not tell."""
    told = model.predictor.importance()
    return sorted(model.encoder.names, key=lambda name: -told.get(name, 0.0))


def inputs_of(model: TabularModel, columns: Mapping[str, npt.NDArray[Any]]) -> Iterator[Input]:
    """What the model's columns hold, the most important first."""
    told = model.predictor.importance()
    for name in important(model):
        column = columns[name]
        present = column[column == column] if column.dtype != object else [value for value in column.tolist() if value is not None]
        nulls, least, most, values = 1 - len(present) / len(column), None, None, None
        if len(present) and isinstance(present[0], str | bool | np.bool_):
            values = len(set(present))
        elif len(present):
            least, most = float(np.min(present)), float(np.max(present))
        yield Input(name, told.get(name), nulls, least, most, values)


def declared_slices(system: System) -> Sequence[str]:
    """The columns by whose values an evaluation is sliced: the groups of the error monitors."""
    known = {**{field.name: field.type for field in system.request.columns.fields}, **{one.name: one.type for one in system.features}}
    names = dict.fromkeys(name for monitor in system.monitors if monitor.watch == "error" for name in monitor.by)
    return [name for name in names if known[name] not in (Type.JSON, Type.INSTANT)]


def predicted_quantile(system: System) -> float | None:
    """The quantile that the model predicts, where it predicts one."""
    model = system.model
    return float(getattr(model, "quantile", 0.5)) if getattr(model, "objective", "") == "quantile" else None
