"""Rows of a source straight from the bytes of their JSON: decoded and checked in one pass, where nothing is unusual about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from mainspring.clock import find_zone, parse_instant
from mainspring.ingestion.values import Rule
from mainspring.schema import Type
from mainspring.spec.aggregate import Value

Decode = Callable[[bytes], dict[str, Value] | None]


def row_decoder(rules: Sequence[Rule]) -> Decode:
    """A function from the bytes of a JSON object to its typed values in the rules' order.

    It gives None for whatever is not plainly valid: the checks of `mainspring.ingestion.contract.Contract` say whether it is, and
    what is wrong. What it does give is what they would.
    """
    fields = [_field(f"c{number}", rule) for number, rule in enumerate(rules)]
    renamed = {f"c{number}": rule.field.name for number, rule in enumerate(rules)}
    row = msgspec.defstruct("Row", fields, rename=renamed, forbid_unknown_fields=True, gc=False, kw_only=True)
    decode, astuple = msgspec.json.Decoder(row).decode, msgspec.structs.astuple
    names = [rule.field.name for rule in rules]
    instants = [(rule.field.name, *rule.limits) for rule in rules if rule.field.type == Type.INSTANT]
    zones = [rule.field.name for rule in rules if rule.field.zone]

    def decoded(body: bytes) -> dict[str, Value] | None:
        try:
            values: dict[str, Any] = dict(zip(names, astuple(decode(body)), strict=True))
            for name, low, high in instants:
                if (text := values[name]) is not None:
                    instant = values[name] = parse_instant(text)
                    if not low <= instant <= high:
                        return None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError):
            return None
        for name in zones:
            if values[name] is not None and find_zone(values[name]) is None:
                return None
        return values

    return decoded


def _field(name: str, rule: Rule) -> tuple[str, Any] | tuple[str, Any, Any]:
    type_ = _type(rule)
    return (name, type_ | None, None) if rule.field.nullable else (name, type_)


def _type(rule: Rule) -> Any:
    kind = rule.field.type
    if rule.allowed:
        return Literal[rule.allowed]
    if kind == Type.STR:
        return Annotated[str, msgspec.Meta(min_length=1)] if rule.is_id else str
    if kind in (Type.INT, Type.FLOAT):
        low, high = rule.limits
        number = int if kind == Type.INT else float
        return Annotated[number, msgspec.Meta(ge=number(low), le=number(high))]
    return bool if kind == Type.BOOL else str
