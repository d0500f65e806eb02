"""Rows of a source straight from the bytes of their JSON: decoded and checked in one pass, where nothing is unusual about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from mainspring.clock import find_zone, parse_instant
from mainspring.errors import RequestError
from mainspring.ingestion.values import Rule
from mainspring.schema import Type
from mainspring.spec.aggregate import Value

Decode = Callable[[bytes], dict[str, Value] | None]
DecodeRows = Callable[[bytes], list[dict[str, Value]] | None]
_Column = Sequence[Any]


def row_decoder(rules: Sequence[Rule]) -> Decode:
    """A function from the bytes of a JSON object to its typed values in the rules' order.

    It gives None for whatever is not plainly valid: the checks of `mainspring.ingestion.contract.Contract` say whether it is, and
    what is wrong. What it does give is what they would. A key that is given twice shows in the number of quotes: where that is not
    what the values need, the body is read once more, and such a key raises `RequestError`. One is missed, and its last value counts,
    only beside a column that is left out and a text that holds the word null.
    """
    fields = [_field(f"c{number}", rule) for number, rule in enumerate(rules)]
    renamed = {f"c{number}": rule.field.name for number, rule in enumerate(rules)}
    row = msgspec.defstruct("Row", fields, rename=renamed, forbid_unknown_fields=True, gc=False, kw_only=True)
    decode, astuple = msgspec.json.Decoder(row).decode, msgspec.structs.astuple
    names = [rule.field.name for rule in rules]
    instants = [(rule.field.name, *rule.limits) for rule in rules if rule.field.type == Type.INSTANT]
    texts = [rule.field.name for rule in rules if rule.field.type in (Type.STR, Type.INSTANT)]
    zones = [rule.field.name for rule in rules if rule.field.zone]

    quoted = 2 * (len(names) + len(texts))

    def decoded(body: bytes) -> dict[str, Value] | None:
        try:
            values: dict[str, Any] = dict(zip(names, astuple(decode(body)), strict=True))
            if body.count(b'"') != (quoted if None not in values.values() else _quoted(values, texts, body)):
                refuse_repeated(body)
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


def rows_decoder(rules: Sequence[Rule]) -> DecodeRows:
    """A function from the bytes of ``{"shared": {...}, "rows": [{...}, ...]}`` to the typed values of each row in the rules' order.

    What a row gives counts before what all share. As with `row_decoder` it gives None for whatever is not plainly valid, and for no rows;
    but of a key that is given twice the last value counts, as it does for the checks.
    """
    types = [_type(rule) | None if rule.field.nullable else _type(rule) for rule in rules]
    fields = [(f"c{number}", type_ | msgspec.UnsetType, msgspec.UNSET) for number, type_ in enumerate(types)]
    renamed = {f"c{number}": rule.field.name for number, rule in enumerate(rules)}
    part = msgspec.defstruct("Part", fields, rename=renamed, forbid_unknown_fields=True, gc=False, kw_only=True)
    whole: list[tuple[str, Any, Any]] = [("shared", part, msgspec.field(default_factory=part)), ("rows", list[part], msgspec.NODEFAULT)]  # type: ignore[valid-type]
    body = msgspec.defstruct("Body", whole, forbid_unknown_fields=True, kw_only=True)
    decode, astuple = msgspec.json.Decoder(body).decode, msgspec.structs.astuple
    names = [rule.field.name for rule in rules]

    def decoded(data: bytes) -> list[dict[str, Value]] | None:
        try:
            parts: Any = decode(data)
            template: dict[str, Value] = dict.fromkeys(names)
            own: dict[str, _Column] = {}
            given: Iterable[tuple[Rule, Any, _Column]] = zip(
                rules, astuple(parts.shared), zip(*map(astuple, parts.rows), strict=True), strict=False
            )
            for rule, shared, column in given:
                name, missing = rule.field.name, column.count(msgspec.UNSET)
                if missing and shared is msgspec.UNSET and not rule.field.nullable:
                    return None
                common = None if shared is msgspec.UNSET else shared
                (template[name],) = _valid(rule, [common])
                if missing < len(column):
                    filled = [common if value is msgspec.UNSET else value for value in column] if missing else column
                    own[name] = _valid(rule, filled)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError):
            return None
        rows = [template.copy() for _ in parts.rows]
        for name, column in own.items():
            for row, value in zip(rows, column, strict=True):
                row[name] = value
        return rows or None

    return decoded


def _valid(rule: Rule, column: _Column) -> _Column:
    """A column with its instants parsed.

    Raises:
        ValueError: one is no instant, or beyond the limits; or a value is no time zone.
    """
    if rule.field.type == Type.INSTANT:
        low, high = rule.limits
        instants = {text: None if text is None else parse_instant(text) for text in set(column)}
        if not all(instant is None or low <= instant <= high for instant in instants.values()):
            raise ValueError(f"{rule.field.name} is out of range")
        return [instants[text] for text in column]
    if rule.field.zone and not all(zone is None or find_zone(zone) for zone in set(column)):
        raise ValueError(f"{rule.field.name} is no time zone")
    return column


def refuse_repeated(body: bytes) -> None:
    """Refuse an object that has a key twice, of which JSON decoders take the last.

    Raises:
        RequestError: it has; the field is the key.
    """
    json.loads(body, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RequestError(key[:64], "is given twice")
        found[key] = value
    return found


def _quoted(values: Mapping[str, Any], texts: Sequence[str], body: bytes) -> int:
    """How many quotes these values need: two a key, also one with null, and two a text."""
    given = len(values) - list(values.values()).count(None)
    return 2 * (given + sum(values[name] is not None for name in texts) + body.count(b"null"))


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
