"""A system described to its callers: metadata, OpenAPI, a page to read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.clock import format_instant, parse_instant
from mainspring.ingestion.values import Rule, rules
from mainspring.schema import Type
from mainspring.spec import Source, System

_JSON_TYPES: dict[Type, dict[str, Any]] = {
    Type.STR: {"type": "string"},
    Type.INT: {"type": "integer", "format": "int64"},
    Type.FLOAT: {"type": "number"},
    Type.BOOL: {"type": "boolean"},
    Type.INSTANT: {"type": "string", "format": "date-time"},
}
TENSORS = {Type.STR: "BYTES", Type.INSTANT: "BYTES", Type.INT: "INT64", Type.FLOAT: "FP64", Type.BOOL: "BOOL"}
"""The Open Inference Protocol's type of each type of a column; instants are ISO 8601 text."""
INFERENCE = (
    ("/v2", "get", "Open Inference Protocol: the server"),
    ("/v2/health/live", "get", "Open Inference Protocol: the process lives"),
    ("/v2/health/ready", "get", "Open Inference Protocol: it can answer"),
    ("/v2/models/{system}", "get", "Open Inference Protocol: tensors of the system"),
    ("/v2/models/{system}/ready", "get", "Open Inference Protocol: the system can answer"),
    ("/v2/models/{system}/infer", "post", "Open Inference Protocol: answers to rows given as tensors, JSON or binary"),
    ("/v2/models/{system}/versions/{{version}}", "get", "Open Inference Protocol: tensors of a version"),
    ("/v2/models/{system}/versions/{{version}}/ready", "get", "Open Inference Protocol: the version is loaded"),
    ("/v2/models/{system}/versions/{{version}}/infer", "post", "Open Inference Protocol: answers of a version, live or not"),
    ("/v2/repository/models/{system}/load", "post", "Open Inference Protocol: load the version of parameters.version"),
    ("/v2/repository/models/{system}/unload", "post", "Open Inference Protocol: let go of it, or of all that are not live"),
    ("/v2/repository/index", "post", "Open Inference Protocol: the systems and their state"),
)
_EXAMPLES: dict[Type, Any] = {Type.FLOAT: 1.5, Type.INT: 1, Type.BOOL: True, Type.INSTANT: parse_instant("2025-03-01T12:00:00Z")}
_NOT_READY = {"503": "it cannot answer yet; the message says why"}
_ERROR_STATUSES = {
    "400": "the body is not JSON, or not an object",
    "413": "the body is over 1 MiB",
    "415": "the content type is not JSON",
    "422": "a field breaks the contract",
    "503": "nothing can answer now; Retry-After says when to try again",
}


def metadata(system: System) -> dict[str, Any]:
    """The question, the request's columns and the features."""
    return {
        "system": system.name,
        "question": system.question,
        "hash": system.hash,
        "request": [_column(rule) for rule in rules(system.request)],
        "features": [{"name": feature.name, "type": feature.type.value} for feature in system.features],
        "label": {"name": system.label.column, "source": system.label.source.name, "matures_after": system.label.matures_after},
    }


def example(source: Source) -> dict[str, Any]:
    """A JSON object that holds to the source's contract."""
    return {rule.field.name: _example(rule) for rule in rules(source)}


def openapi(systems: Sequence[System]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the gateway."""
    from mainspring import __version__

    paths: dict[str, Any] = {}
    for system in systems:
        home = f"/v1/{system.name}"
        paths[home] = {"post": _answer_operation(system), "get": _operation("Question, schema, features, live versions")}
        paths[f"{home}/rows"] = {"post": _rows_operation(system)}
        paths[f"{home}/predictions"] = {"post": _operation("Take in answers that devices gave", _ERROR_STATUSES)}
        for source in (system.request, *system.sources):
            paths[f"{home}/events/{source.name}"] = {"post": _events_operation(source)}
        paths[f"/readyz/{system.name}"] = {"get": _operation("This system can answer", _NOT_READY)}
        for path, method, summary in INFERENCE:
            paths[path.format(system=system.name)] = {method: _operation(summary)}
    for path, summary in (("/healthz", "The process lives"), ("/metrics", "Prometheus metrics")):
        paths[path] = {"get": _operation(summary)}
    paths["/readyz"] = {"get": _operation("All systems can answer", _NOT_READY)}
    error_fields = {"field": {"type": ["string", "null"]}, "message": {"type": "string"}, "request_id": {"type": "string"}}
    error = {"type": "object", "properties": {"error": {"type": "object", "properties": error_fields}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": _title(systems), "description": " ".join(system.question for system in systems), "version": __version__},
        "paths": paths,
        "components": {"schemas": {"Error": error}},
    }


def page(systems: Sequence[System]) -> str:
    """An HTML page, without anything from elsewhere, that lists the endpoints with a curl line each."""
    from html import escape

    document = openapi(systems)
    bodies: dict[str, Any] = {}
    for system in systems:
        home, row = f"/v1/{system.name}", example(system.request)
        bodies |= {home: row, f"{home}/rows": {"rows": [row]}}
        bodies |= {f"{home}/events/{source.name}": example(source) for source in (system.request, *system.sources)}
        bodies[f"/v2/models/{system.name}/infer"] = tensors(system.request)
    sections = [
        _section(method.upper(), path, operation["summary"], bodies.get(path, {}))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    title = escape(": ".join((_title(systems), " ".join(system.question for system in systems))))
    style = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{background:#eee;padding:1rem;overflow:auto}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{style}</style><h1>{title}</h1>"
        f'{"".join(sections)}<p>The whole description: <a href="/openapi.json">/openapi.json</a></html>\n'
    )


def tensors(source: Source) -> dict[str, Any]:
    """An Open Inference Protocol request of one row that holds to the source's contract."""
    inputs = []
    for rule in rules(source):
        value = _example(rule)
        inputs.append({"name": rule.field.name, "shape": [1], "datatype": TENSORS[rule.field.type], "data": [value]})
    return {"inputs": inputs}


def _title(systems: Sequence[System]) -> str:
    return ", ".join(system.name for system in systems)


def _section(method: str, path: str, summary: str, body: Mapping[str, Any]) -> str:
    from html import escape

    json_text = json.dumps(body).replace("'", r"'\''")
    data = f" \\\n  --json '{json_text}'" if method == "POST" else ""
    curl = f'curl "$URL{path}"{data}'
    return f"<h2>{method} {escape(path)}</h2><p>{escape(summary)}</p><pre>{escape(curl)}</pre>"


def _column(rule: Rule) -> dict[str, Any]:
    column: dict[str, Any] = {"name": rule.field.name, "type": rule.field.type.value, "nullable": rule.field.nullable}
    return column | {key: _written(rule, bound) for key, bound in (("min", rule.low), ("max", rule.high)) if bound is not None}


def _schema(source: Source) -> dict[str, Any]:
    properties = {rule.field.name: _property(rule) for rule in rules(source)}
    required = [field.name for field in source.schema.fields if not field.nullable]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False, "examples": [example(source)]}


def _property(rule: Rule) -> dict[str, Any]:
    schema = dict(_JSON_TYPES[rule.field.type])
    if rule.field.nullable:
        schema["type"] = [schema["type"], "null"]
    if rule.is_id and rule.field.type == Type.STR:
        schema["minLength"] = 1
    if rule.allowed:
        schema["enum"] = [*rule.allowed, *([None] if rule.field.nullable else [])]
    if rule.field.zone:
        schema["description"] = "IANA time zone"
    bounds = [(key, bound) for key, bound in (("minimum", rule.low), ("maximum", rule.high)) if bound is not None]
    if rule.field.type == Type.INSTANT:
        return schema | ({"description": ", ".join(f"{key} {_written(rule, bound)}" for key, bound in bounds)} if bounds else {})
    return schema | dict(bounds)


def _example(rule: Rule) -> Any:
    if rule.allowed:
        return rule.allowed[0]
    if rule.field.zone:
        return "America/New_York"
    if rule.field.type == Type.STR:
        return f"{rule.field.name}-1"
    usual = _EXAMPLES[rule.field.type]
    if rule.field.type == Type.BOOL:
        return usual
    low, high = rule.limits
    value = min(max(usual, low), high)
    return _written(rule, math.ceil(value) if rule.field.type != Type.FLOAT else value)


def _written(rule: Rule, bound: float) -> Any:
    return format_instant(int(bound)) if rule.field.type == Type.INSTANT else bound


def _answer_operation(system: System) -> dict[str, Any]:
    explain = {"name": "explain", "in": "query", "schema": {"type": "boolean", "default": True}, "description": "give reasons"}
    return {**_operation(system.question, _ERROR_STATUSES), "parameters": [explain], "requestBody": _body(_schema(system.request))}


def _rows_operation(system: System) -> dict[str, Any]:
    row = {key: value for key, value in _schema(system.request).items() if key not in ("required", "examples")}
    properties = {"shared": row, "rows": {"type": "array", "items": row, "minItems": 1}}
    schema = {"type": "object", "properties": properties, "required": ["rows"], "examples": [{"rows": [example(system.request)]}]}
    return {**_operation(f"{system.question} Asked of many rows, each answered by itself", _ERROR_STATUSES), "requestBody": _body(schema)}


def _events_operation(source: Source) -> dict[str, Any]:
    schema = _schema(source)
    summary = f"Take in facts of {source.name}" + (f": {source.description}" if source.description else "")
    return {**_operation(summary, _ERROR_STATUSES), "requestBody": _body({"oneOf": [schema, {"type": "array", "items": schema}]})}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _operation(summary: str, errors: Mapping[str, str] | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {status: {"description": text, "content": content} for status, text in (errors or {}).items()}
    return {"summary": summary, "responses": {"200": {"description": "the answer"}, **refusals}}
