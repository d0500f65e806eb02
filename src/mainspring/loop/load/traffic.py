"""What is asked for: bodies of a file, of a system's own answers, or made to hold to its contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.clock import HOUR, format_instant, parse_instant
from mainspring.errors import DataError, RequestError
from mainspring.ingestion import Contract
from mainspring.ingestion.values import Rule, rules
from mainspring.loop.replay import request_bodies
from mainspring.schema import Type
from mainspring.spec import Source
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

KEYS = 1_000
MOST = 20_000
_NULLS = 0.05
_ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Tokyo")


def from_file(path: Path) -> list[bytes]:
    """The lines of a file, each a body of JSON; empty lines are skipped.

    Raises:
        DataError: the file cannot be read, holds no body, or a line is no JSON.
    """
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise DataError(f"Requests, {path}: cannot be read ({error}). Name a file with one JSON body a line.") from error
    for number, line in enumerate(lines, 1):
        try:
            msgspec.json.decode(line or b"0")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"Requests, {path}, line {number}: it is not JSON ({error}). Put each body on a line of its own.") from error
    if not any(lines):
        raise DataError(f"Requests, {path}: there is no body. Put each on a line of its own.")
    return [line for line in lines if line]


def answered(workspace: Workspace, source: Source) -> list[bytes]:
    """The newest requests that the workspace's prediction log holds, at most 20,000, in their order.

    Raises:
        DataError: it holds none.
    """
    table, _ = PredictionLog(workspace.predictions).read()
    if not len(table) or f"request.{source.schema.names[0]}" not in table.column_names:
        raise DataError(f"{workspace.predictions}: no request has been answered yet. Use synthetic traffic: leave --requests out.")
    newest = table.slice(max(0, len(table) - MOST))
    columns = {name: newest.column(f"request.{name}") for name in source.schema.names}
    return list(request_bodies(source, pa.table(columns)))


def synthetic(source: Source, count: int, seed: int, now: int) -> list[bytes]:
    """Bodies that hold to the contract of a request source: the same for the same seed and instant.

    Ids are new, other texts one of a thousand keys, instants from the hour before ``now``, numbers spread over their range, or
    standard normal (whole ones 0 to 100) where none is declared.

    Raises:
        DataError: the contract refuses a made value, as one with a derived column may; record requests instead.
    """
    rng = np.random.default_rng(seed)
    columns = {rule.field.name: _values(rule, count, rng, seed, now) for rule in rules(source)}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    contract = Contract(source)
    for row in rows:
        try:
            contract.check(row)
        except RequestError as error:
            raise DataError(
                f"Source '{source.name}': made requests break its contract ({error}). Give a file of real ones with --requests."
            ) from error
    return [msgspec.json.encode(row) for row in rows]


def instants(bodies: Sequence[bytes], source: Source) -> list[int]:
    """When each body's fact happened, microseconds.

    Raises:
        DataError: a body lacks the event time, or it is none.
    """
    try:
        return [parse_instant(msgspec.json.decode(body)[source.event_time]) for body in bodies]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"Recorded arrivals: a body has no valid '{source.event_time}' ({error}). Use --arrivals poisson.") from error


def _values(rule: Rule, count: int, rng: np.random.Generator, seed: int, now: int) -> list[Any]:
    made = _made(rule, count, rng, seed, now)
    empty = rng.random(count) < _NULLS if rule.field.nullable else np.zeros(count, dtype=bool)
    return [None if null else value for value, null in zip(made, empty.tolist(), strict=True)]


def _made(rule: Rule, count: int, rng: np.random.Generator, seed: int, now: int) -> list[Any]:
    field = rule.field
    if rule.is_id:
        return list(range(count)) if field.type == Type.INT else [f"bench-{seed}-{number}" for number in range(count)]
    if rule.allowed:
        return [rule.allowed[place] for place in rng.integers(0, len(rule.allowed), count)]
    if field.type == Type.BOOL:
        return [bool(value) for value in rng.random(count) < 0.5]
    if field.type == Type.STR and field.zone:
        return [_ZONES[place] for place in rng.integers(0, len(_ZONES), count)]
    if field.type == Type.STR:
        return [f"{field.name}-{number}" for number in rng.integers(0, KEYS, count)]
    low, high = rule.limits
    if field.type == Type.INSTANT:
        return [format_instant(min(max(now - int(ago), int(low)), int(high))) for ago in rng.integers(0, HOUR, count)]
    spread = rule.low is not None and rule.high is not None
    if field.type == Type.INT:
        start, end = (int(low), int(high)) if spread else (0, 100)
        return [int(min(max(value, low), high)) for value in rng.integers(start, end, count, endpoint=True)]
    numbers = rng.uniform(low, high, count) if spread else rng.normal(size=count)
    return [float(value) for value in np.clip(numbers, low, high)]
