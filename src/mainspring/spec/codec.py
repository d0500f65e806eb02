"""Declarations to JSON and back. Functions travel as ``module:name`` and a hash of their code, never as code."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from mainspring.errors import DeclarationError
from mainspring.schema import Field, Schema, Type
from mainspring.spec.aggregate import Aggregate, View
from mainspring.spec.expectation import Ahead, Fixed, Fresh, Nulls, Rows, Unique
from mainspring.spec.feature import Column, Function
from mainspring.spec.label import GroupMedian, Label, LinearRule, RecentRatio
from mainspring.spec.model import LightGBM, Linear, Net, Sklearn, XGBoost
from mainspring.spec.operation import Monitor, Policy, Rollout
from mainspring.spec.quality import Quality
from mainspring.spec.requirements import Costs, Requirements
from mainspring.spec.source import Source
from mainspring.spec.splits import GroupSplit, LeaveLastOut, TimeGroupSplit, TimeSplit
from mainspring.spec.text import Text

_NOUNS: dict[str, type[Any]] = {
    noun.__name__: noun
    for noun in (
        *(Aggregate, Ahead, Column, Costs, Field, Fixed, Fresh, GroupMedian, GroupSplit, Label, LeaveLastOut, LightGBM, Linear),
        *(LinearRule, Monitor, Net, Nulls, Policy, Quality, RecentRatio, Requirements, Rollout, Rows, Schema, Sklearn, Source),
        *(Text, TimeGroupSplit, TimeSplit, Unique, View, XGBoost),
    )
}


@functools.cache
def code_hash(function: Any) -> str:
    """First 16 hex digits of the SHA-256 of a function's syntax tree, so that comments and layout do not count."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        text = ast.dump(tree)
    except (OSError, TypeError, SyntaxError):
        text = f"{function.__code__.co_code!r}{function.__code__.co_consts!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def encode(value: Any, sources: Sequence[Source] = ()) -> Any:
    """JSON-ready form of a declaration; ``sources`` are written once and referred to by name."""
    body = _encode(value, named=True)
    return {"sources": [_encode(source, named=False) for source in sources], "declaration": body}


def decode(text: str, expected_format: int, root: type[Any]) -> Any:
    """The declaration in ``text``, whose outermost noun is ``root``.

    Raises:
        DeclarationError: not JSON, another format, an unknown noun, a function that is gone or changed.
    """
    try:
        document = json.loads(text)
        version = document["format"]
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise DeclarationError(f"Declaration: this is not a System in JSON ({error}). Write one with System.to_json().") from error
    if version != expected_format:
        raise DeclarationError(f"Declaration: format {version} is not {expected_format}. Write it again with this version of mainspring.")
    sources: dict[str, Source] = {}
    for body in document["sources"]:
        source = _decode(body, sources)
        sources[source.name] = source
    fields = dict(document["declaration"])
    if fields.pop("$noun", None) != root.__name__:
        raise DeclarationError(f"Declaration: this JSON does not hold a {root.__name__}.")
    return root(**{key: _decode(item, sources) for key, item in fields.items()})


def _encode(value: Any, *, named: bool) -> Any:
    if isinstance(value, Source) and named:
        return {"$source": value.name}
    if isinstance(value, Function):
        function = value.function
        rest = {"name": value.name, "inputs": list(value.inputs), "type": value.type.value, "default": value.default}
        return {"$function": f"{function.__module__}:{function.__qualname__}", "code": code_hash(function), **rest}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _encode(getattr(value, field.name), named=True) for field in dataclasses.fields(value) if field.init}
        return {"$noun": type(value).__name__, **fields}
    if isinstance(value, Type):
        return {"$type": value.value}
    if isinstance(value, tuple | list):
        return [_encode(item, named=True) for item in value]
    return value


def _decode(value: Any, sources: dict[str, Source]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, sources) for item in value)
    if not isinstance(value, dict):
        return value
    if "$source" in value:
        return sources[value["$source"]]
    if "$type" in value:
        return Type(value["$type"])
    if "$function" in value:
        return _function(value)
    name = value.get("$noun")
    if name not in _NOUNS:
        raise DeclarationError(f"Declaration: noun {name!r} is not known. It was written by another version of mainspring.")
    return _NOUNS[name](**{key: _decode(item, sources) for key, item in value.items() if key != "$noun"})


def _function(body: dict[str, Any]) -> Function:
    module, _, name = body["$function"].partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DeclarationError(
            f"Feature function '{body['name']}': {module}:{name} cannot be imported ({error}). Put it where it was."
        ) from error
    function = found.function if isinstance(found, Function) else found
    if code_hash(function) != body["code"]:
        raise DeclarationError(
            f"Feature function '{body['name']}': the code of {module}:{name} has changed since this was written. Train again."
        )
    return Function(function, body["name"], tuple(body["inputs"]), Type(body["type"]), body["default"])
