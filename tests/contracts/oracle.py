"""The answers of SEMANTICS by brute force: plain Python over lists of facts."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from operator import mul
from typing import Any

from mainspring.clock import parse_duration
from mainspring.spec import Aggregate


@dataclass(frozen=True)
class Fact:
    key: Any
    event_time: int
    known_time: int
    event_id: str
    values: dict[str, Any]


def answer(aggregate: Aggregate, facts: list[Fact], key: Any, as_of: int, known_as_of: bool = True) -> Any:
    inclusive = aggregate.view.source.kind == "table"
    visible = [
        fact
        for fact in facts
        if key is not None
        and fact.key == key
        and (fact.event_time < as_of or (inclusive and fact.event_time == as_of))
        and (not known_as_of or fact.known_time <= as_of)
    ]
    once: dict[str, Fact] = {}
    for fact in visible:
        held = once.get(fact.event_id)
        if held is None or (fact.known_time, fact.event_time) > (held.known_time, held.event_time):
            once[fact.event_id] = fact
    facts = sorted(once.values(), key=lambda fact: (fact.event_time, fact.known_time, fact.event_id))
    if aggregate.is_newest:
        newest = facts[-1] if facts else None
        expired = newest is None or (aggregate.max_age_us is not None and newest.event_time < as_of - aggregate.max_age_us)
        return None if newest is None or expired else newest.values[aggregate.column or ""]
    if aggregate.window_us is not None:
        facts = [fact for fact in facts if fact.event_time >= as_of - aggregate.window_us]
    if aggregate.where is not None:
        facts = [fact for fact in facts if fact.values[aggregate.where] is True]
    if aggregate.column is not None:
        facts = [fact for fact in facts if fact.values[aggregate.column] is not None]
    if aggregate.by is None:
        return folded(aggregate, facts, as_of)
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.values[aggregate.by] is not None:
            groups.setdefault(str(fact.values[aggregate.by]), []).append(fact)
    return {group: folded(aggregate, some, as_of) for group, some in groups.items()} or None


def folded(aggregate: Aggregate, facts: list[Fact], as_of: int) -> Any:
    function, argument, n = aggregate.function, aggregate.argument, len(facts)
    values = [fact.values[aggregate.column] for fact in facts] if aggregate.column is not None else []
    if function in ("count", "rate"):
        return n if function == "count" else n * 1e6 / (aggregate.window_us or 0)
    if function in ("distinct", "approx_distinct"):
        return len(set(values))
    if function == "histogram":
        return [sum(low <= value < high for value in values) for low, high in pairwise([-math.inf, *argument, math.inf])]
    if function == "streak":
        return next((i for i, value in enumerate(reversed(values)) if not value), n)
    if not facts:
        return None
    if function == "time_since_last":
        return (as_of - facts[-1].event_time) / 1e6
    if function in ("variance", "stddev"):
        spread = statistics.variance(map(Fraction, values)) if n > 1 else None
        return None if spread is None else float(spread) ** (1.0 if function == "variance" else 0.5)
    if function == "top_k":
        return sorted(set(values), key=lambda value: (-values.count(value), value))[:argument]
    if function == "approx_percentile":
        return sorted(values)[math.floor(argument * (n - 1))]
    if function == "ewma":
        weights = [0.5 ** ((facts[-1].event_time - fact.event_time) / parse_duration(argument)) for fact in facts]
        return math.fsum(map(mul, weights, values)) / math.fsum(weights)
    plain = {"sum": sum, "min": min, "max": max, "mean": lambda v: sum(v) / n, "first": lambda v: v[0], "last": lambda v: v[-1]}
    lists = {"first_k": lambda v: v[:argument], "last_k": lambda v: v[::-1][:argument]}
    return {**plain, **lists}[function](values)
