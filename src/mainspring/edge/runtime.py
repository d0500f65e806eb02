"""Answers from a document: the request's contract, functions, encoder, model, offset, calibration, interval, limits.

This module is written into exported files as it is: it needs the standard library and NumPy, and nothing of this package.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EDGE = 1e-12
_DTYPES = {"int": np.int64, "instant": np.int64, "bool": np.bool_}
_WANTED: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, "instant": str}
_NAMED = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "instant": "a date and time in ISO 8601"}


class RequestError(ValueError):
    """A request is refused; ``field`` names what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class Trees:
    """An ensemble in tables: node ``i`` sends a row to ``low[i]`` or ``high[i]``; a leaf leads to itself and holds a number.

    Sums run in the order of the trees, in ``dtype``, so that they are those of the library that grew them, to the bit.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._dtype = np.dtype(body["dtype"])
        self._single = self._dtype == np.float32
        self._less, self._link, self._steepness, self._depth = body["less"], body["link"], body["steepness"], body["depth"]
        self._roots, self._column, self._low, self._high = (
            np.array(body[name], dtype=np.intp) for name in ("roots", "column", "low", "high")
        )
        self._value, self._leaf = (np.array(body[name], dtype=self._dtype) for name in ("value", "leaf"))
        self._missing = np.array(body["missing_low"], dtype=np.bool_)
        self._among = np.array(body["among"], dtype=np.intp)
        width = max((max(codes) for codes in body["members"]), default=-1) + 2
        self._members = np.zeros((len(body["members"]), width), dtype=np.bool_)
        for number, codes in enumerate(body["members"]):
            self._members[number, codes] = True

    def score(self, x: Any) -> Any:
        """Sums before the link, of shape ``(n,)``, for a float64 matrix of shape ``(n, d)``."""
        x = x.astype(self._dtype, copy=False)
        missing = np.isnan(x)
        rows, node = np.arange(len(x))[:, None], np.repeat(self._roots[None, :], len(x), axis=0)
        for _ in range(self._depth):
            column = self._column[node]
            value = x[rows, column]
            low = value < self._value[node] if self._less else value <= self._value[node]
            low = np.where(missing[rows, column], self._missing[node], low)
            if len(self._members):
                among = self._among[node]
                low = np.where(among < 0, low, self._holds(among, value))
            node = np.where(low, self._low[node], self._high[node])
        return np.add.accumulate(self._leaf[node], axis=1, dtype=self._dtype)[:, -1]

    def predict(self, x: Any) -> Any:
        """Answers of shape ``(n,)``, float64."""
        score = self.score(x)
        if self._link == "identity":
            return score.astype(np.float64)
        if self._single:
            raised = np.array([math.exp(min(-one, 88.7)) for one in score.tolist()], dtype=np.float32)
            return (np.float32(1) / (raised + np.float32(1))).astype(np.float64)
        return np.array([_logistic(self._steepness * one) for one in score.tolist()])

    def _holds(self, among: Any, value: Any) -> Any:
        codes = np.where(np.isfinite(value), np.clip(value, -1, self._members.shape[1] - 1), -1).astype(np.intp)
        return np.where(codes < 0, False, self._members[among, codes])


class Line:
    """A linear model over standardised columns and indicators of codes."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._means, self._scales, self._weights = (np.array(body[name]) for name in ("means", "scales", "weights"))
        self._codes, self._bias, self._link = body["codes"], body["bias"], body["link"]

    def predict(self, x: Any) -> Any:
        """Answers of shape ``(n,)``, float64, for a float64 matrix of shape ``(n, d)``."""
        parts = []
        for place, count in enumerate(self._codes):
            column, missing = x[:, place], np.isnan(x[:, place])
            if count:
                parts.append(np.where(missing, -1.0, column)[:, None] == np.arange(count))
            else:
                standard = np.where(missing, 0.0, (column - self._means[place]) / self._scales[place])
                parts.append(np.column_stack([standard, missing]))
        score = (np.concatenate(parts, axis=1).astype(np.float64) * self._weights).sum(axis=1) + self._bias
        return 0.5 * (1 + np.tanh(score / 2)) if self._link == "logistic" else score


class Embedded:
    """A model with its contract and functions; ``document`` is JSON, ``functions`` are NumPy functions by their names."""

    def __init__(self, document: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> None:
        self.document = document
        self._functions = functions
        self.predictor = _model(document["model"])
        self._bounds = [_model(document[name]) for name in ("low", "high") if document[name] is not None]

    def answer(self, request: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to one request, a JSON object as the service takes it.

        ``given`` holds values of features that are not computed here (see ``document["given"]``), None for null. What is not in it has
        its declared default, is flagged as unavailable, and so is every function of it.

        Raises:
            RequestError: the request, or what is given, does not hold to the contract.
        """
        return self.answered(request, given)[0]

    def answered(self, request: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The answer as `answer` gives it, and the values of all columns and features that it was made from."""
        values, unavailable = self._features(self._checked(request), given or {})
        answered_by, because, (score, low, high) = "model", None, (0.0, None, None)
        try:
            score, low, high = self._predict(values)
        except LookupError as error:
            because = str(error)
            answered_by, score = self._rule(values, because)
        said = self.document
        answer = {"system": said["system"], said["label"]: self._clip(score), "answered_by": answered_by, "version": said["version"]}
        if low is not None and high is not None:
            answer["interval"] = {"low": self._clip(low), "high": self._clip(high), "quantiles": said["quantiles"]}
        answer |= {} if because is None else {"because": because}
        return answer | ({"flags": dict.fromkeys(sorted(unavailable), "unavailable")} if unavailable else {}), values

    def predict_row(self, values: Sequence[Any]) -> tuple[float, float | None, float | None]:
        """Answer and interval of one row of feature values in the encoder's order, None for null, before floor and ceiling."""
        said, names = self.document, self.document["encoder"]["names"]
        offset = 0.0
        if said["offset"] is not None:
            value = values[names.index(said["offset"])]
            if value is None and said["offset"] in said["encoder"]["medians"]:
                raise LookupError(f"feature '{said['offset']}' is null, and the model corrects it; it never was null in training")
            offset = 0.0 if value is None else float(value)
        x = self._encoded(values)
        score = float(self._corrected(self.predictor.predict(x))[0]) + offset
        interval = said["interval"]
        if interval is None:
            return score, None, None
        if "edges" in interval:
            place = bisect_right(interval["edges"], score)
            return score, score + interval["low"][place], score + interval["high"][place]
        below, above = (float(one.predict(x)[0]) for one in self._bounds)
        return score, min(below + interval["below"] + offset, score), max(above + interval["above"] + offset, score)

    def _predict(self, values: Mapping[str, Any]) -> tuple[float, float | None, float | None]:
        return self.predict_row([values[name] for name in self.document["encoder"]["names"]])

    def _rule(self, values: Mapping[str, Any], because: str) -> tuple[str, float]:
        for rule in self.document["rules"]:
            value = values[rule["on"]]
            return rule["name"], rule["intercept"] + rule["slope"] * (rule["typical"] if value is None else float(value))
        raise RequestError("", f"nothing can answer: {because}")

    def _encoded(self, values: Sequence[Any]) -> Any:
        encoder = self.document["encoder"]
        row = []
        for name, value in zip(encoder["names"], values, strict=True):
            null = encoder["medians"].get(name, math.nan)
            codes = encoder["categories"].get(name)
            row.append((null if value is None else value) if codes is None else codes.get(value, null))
        return np.array([row], dtype=np.float64)

    def _corrected(self, predicted: Any) -> Any:
        kept, calibration = self.document["kept"], self.document["calibration"]
        whole = predicted if kept == 1 else predicted / (predicted + (1 - predicted) / kept)
        if calibration is None:
            return whole
        if calibration["kind"] == "isotonic":
            return np.interp(whole, calibration["points"], calibration["values"])
        p = np.clip(whole, _EDGE, 1 - _EDGE)
        slope, shift = calibration.get("slope", calibration.get("sharpness")), calibration.get("shift", 0.0)
        return 0.5 * (1 + np.tanh((slope * np.log(p / (1 - p)) + shift) / 2))

    def _clip(self, value: float) -> float:
        floor, ceiling = self.document["floor"], self.document["ceiling"]
        raised = value if floor is None else max(value, floor)
        return raised if ceiling is None else min(raised, ceiling)

    def _checked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        rules = self.document["request"]
        unknown = sorted(request.keys() - {rule["name"] for rule in rules})
        if unknown:
            raise RequestError(unknown[0], "is not known")
        row = {}
        for rule in rules:
            if rule["name"] not in request and not rule["nullable"]:
                raise RequestError(rule["name"], "is missing")
            row[rule["name"]] = _valid(rule, request.get(rule["name"]))
        return row

    def _features(self, row: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
        said = self.document
        unknown = sorted(given.keys() - {one["name"] for one in said["given"]})
        if unknown:
            raise RequestError(unknown[0], "is not a feature that is given")
        values, unavailable = dict(row), {one["name"] for one in said["given"]} - given.keys()
        for one in said["given"]:
            values[one["name"]] = _given(one, given[one["name"]]) if one["name"] in given else one["default"]
        types = {one["name"]: one["type"] for one in (*said["request"], *said["given"], *said["functions"])}
        with np.errstate(all="ignore"):
            for function in said["functions"]:
                if unavailable.isdisjoint(function["inputs"]):
                    inputs = [_column(values[name], types[name]) for name in function["inputs"]]
                    values[function["name"]] = self._called(function, inputs)
                else:
                    unavailable.add(function["name"])
                    values[function["name"]] = function["default"]
        return values, unavailable

    def _called(self, function: Mapping[str, Any], inputs: Sequence[Any]) -> Any:
        try:
            return _result(function, self._functions[function["name"]](*inputs))
        except Exception as error:
            raise RequestError(function["name"], f"cannot be computed from {', '.join(function['inputs'])}: {error}") from error


def _model(body: Mapping[str, Any]) -> Any:
    return {"trees": Trees, "line": Line}[body["form"]](body)


def _logistic(score: float) -> float:
    return 1.0 / (1.0 + math.exp(-score)) if score > -700 else 0.0


def _valid(rule: Mapping[str, Any], value: Any) -> Any:
    """A value of the request as JSON holds it to the typed one, instants as microseconds."""
    name, type_ = rule["name"], rule["type"]
    if value is None:
        if rule["nullable"]:
            return None
        raise RequestError(name, "is null, and may not be")
    if not isinstance(value, _WANTED[type_]) or (isinstance(value, bool) and type_ != "bool"):
        raise RequestError(name, f"must be {_NAMED[type_]}")
    typed = _instant(name, value) if type_ == "instant" else float(value) if type_ == "float" else value
    if type_ == "float" and not math.isfinite(typed):
        raise RequestError(name, "must be a finite number")
    if rule["id"] and typed == "":
        raise RequestError(name, "is empty; an id needs at least one character")
    if rule["low"] is not None and not rule["low"] <= typed <= rule["high"]:
        raise RequestError(name, f"must be from {rule['low']} to {rule['high']}")
    if rule["allowed"] and typed not in rule["allowed"]:
        raise RequestError(name, f"must be one of {', '.join(map(repr, rule['allowed']))}")
    return typed


def _instant(name: str, value: str) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise RequestError(name, "must be a date and time in ISO 8601, for example 2025-03-01T12:00:00Z") from error
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _given(one: Mapping[str, Any], value: Any) -> Any:
    wanted: Any = {"instant": int, "json": (list, dict)}.get(one["type"], _WANTED.get(one["type"]))
    if value is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and one["type"] != "bool")):
        raise RequestError(one["name"], f"must be {_NAMED.get(one['type'], 'a list or map')} or null")
    return float(value) if one["type"] == "float" and value is not None else value


def _column(value: Any, type_: str) -> Any:
    """A value as a column of one row, as functions take it."""
    if type_ == "float":
        return np.array([math.nan if value is None else value], dtype=np.float64)
    if type_ in _DTYPES and value is not None:
        return np.array([value], dtype=_DTYPES[type_])
    column = np.empty(1, dtype=object)
    column[0] = value
    return column


def _result(function: Mapping[str, Any], result: Any) -> Any:
    """The one value in what a function returned; what is no number takes the function's default."""
    value = np.asarray(result).tolist()[0]
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return function["default"]
    return {"float": float, "str": str, "bool": bool}.get(function["type"], int)(value)
