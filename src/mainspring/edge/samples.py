"""Rows that a file must answer as the service does, and what the service's own code answers to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.clock import format_instant
from mainspring.columns import to_array, to_values
from mainspring.errors import ServingError
from mainspring.models.tabular import TabularModel
from mainspring.schema import Type
from mainspring.spec import System
from mainspring.spec.evaluate import apply_functions
from mainspring.training.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Sample:
    """A request as JSON, the features that are given with it, and the score with its interval; all None where the model cannot answer."""

    request: dict[str, Any]
    given: dict[str, Any]
    expected: tuple[float | None, float | None, float | None]


def samples(system: System, model: TabularModel, written: Mapping[str, Any], rows: Dataset) -> list[Sample]:
    """Those of ``rows``, and copies of them in which each nullable column of the request and each given number or text is null in turn."""
    types = {name: system.request.columns[name].type for name in system.request.columns.names}
    asked = [rule["name"] for rule in written["request"]]
    given = {one["name"]: Type(one["type"]) for one in written["given"]}
    nullable = [name for name, type_ in given.items() if type_ in (Type.FLOAT, Type.STR)]
    columns = {name: to_values(rows.columns[name]) for name in (*asked, *given)}
    table = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    whole = [*table, *_with_nulls(table, [*(rule["name"] for rule in written["request"] if rule["nullable"]), *nullable])]
    found = []
    for row in whole:
        request = {
            name: format_instant(row[name]) if types[name] == Type.INSTANT and row[name] is not None else row[name] for name in asked
        }
        found.append(Sample(request, {name: row[name] for name in given}, _expected(system, model, row, {**types, **given})))
    return found


def _with_nulls(table: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(names):
        yield {**table[number % len(table)], name: None}
    yield {**table[0], **dict.fromkeys(names)}


def _expected(
    system: System, model: TabularModel, row: Mapping[str, Any], types: Mapping[str, Type]
) -> tuple[float | None, float | None, float | None]:
    """What the service answers: functions, encoder, model, offset, calibration, interval, then floor and ceiling."""
    columns = {name: to_array([value], types[name]) for name, value in row.items()}
    waiting = [one for one in (*system.request.derive, *system.functions) if one.name not in columns]
    known = {*columns}
    usable = []
    for function in waiting:
        if known.issuperset(function.inputs):
            usable.append(function)
            known.add(function.name)
    columns |= apply_functions(usable, columns)
    values = [_value(columns[name]) for name in model.encoder.names]
    try:
        score, low, high = model.predict_row(values)
    except ServingError:
        return None, None, None
    return _clipped(system, score), _clipped(system, low), _clipped(system, high)


def _value(column: Any) -> Any:
    (value,) = np.asarray(column).tolist()
    return None if value is None or value != value else value


def _clipped(system: System, value: float | None) -> float | None:
    if value is None:
        return None
    raised = value if system.policy.floor is None else max(value, system.policy.floor)
    return raised if system.policy.ceiling is None else min(raised, system.policy.ceiling)
