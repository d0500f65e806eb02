"""The answers of SEMANTICS by brute force: plain Python over lists of facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    facts = list(once.values())
    if aggregate.function == "last":
        return _last(aggregate, facts, as_of)
    if aggregate.window_us is not None:
        facts = [fact for fact in facts if fact.event_time >= as_of - aggregate.window_us]
    if aggregate.column is None:
        return len(facts)
    values = [fact.values[aggregate.column] for fact in facts if fact.values[aggregate.column] is not None]
    if not values:
        return None
    return {"sum": sum, "min": min, "max": max, "mean": lambda v: sum(v) / len(v)}[aggregate.function](values)


def _last(aggregate: Aggregate, facts: list[Fact], as_of: int) -> Any:
    if not facts:
        return None
    newest = max(facts, key=lambda fact: (fact.event_time, fact.known_time, fact.event_id))
    if aggregate.max_age_us is not None and newest.event_time < as_of - aggregate.max_age_us:
        return None
    return newest.values[aggregate.column or ""]
