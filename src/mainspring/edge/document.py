"""A system and a version of its model as one JSON document: all that an answer follows from, but for the code of functions."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np

from mainspring.errors import ExportError
from mainspring.ingestion.values import rules
from mainspring.models.adapters.ensembles import ensemble_of
from mainspring.models.conformal import QuantileInterval
from mainspring.models.linear import Linear
from mainspring.models.protocol import Predictor
from mainspring.models.tabular import TabularModel
from mainspring.models.trees import Ensemble, Split
from mainspring.schema import Type
from mainspring.spec import Aggregate, Function, LinearRule, System


def document(
    system: System, version: str, model: TabularModel, baselines: Mapping[str, Any], given: Collection[str] = ()
) -> dict[str, Any]:
    """All of ``system`` that answers without a store, JSON-ready.

    Aggregates, and the functions named in ``given``, are inputs of the answer; every other function that the model or a rule needs is
    computed.

    Raises:
        ExportError: the model reads free text, or ``given`` names what is no function of the system.
    """
    if model.encoder.texts:
        raise ExportError(f"Version '{version}' reads free text, which has no other form. Serve it as it is.")
    lines = [one for one in system.baselines if isinstance(one, LinearRule) and one.name in system.policy.fallback]
    asked, computed = _needed(system, {*model.encoder.names, *(one.on for one in lines)}, given)
    interval, calibration = model.interval, model.calibration
    return {
        "system": system.name,
        "version": version,
        "label": system.label.column,
        "request": _request(system),
        "given": asked,
        "functions": [_function(one) for one in computed],
        "encoder": {**model.encoder.to_dict(), "categories": {name: dict(codes) for name, codes in model.encoder.categories.items()}},
        "offset": model.offset,
        "kept": model.kept,
        "calibration": None if calibration is None else calibration.to_dict(),
        "interval": None if interval is None else interval.to_dict(),
        "quantiles": None if system.model.interval is None else list(system.model.interval),
        "floor": system.policy.floor,
        "ceiling": system.policy.ceiling,
        "rules": [{"name": one.name, "on": one.on, **baselines[one.name]} for one in lines],
    }


def predictors(model: TabularModel) -> dict[str, Predictor | None]:
    """What predicts: ``model``, and of an interval by quantiles its two bounds."""
    bounds = model.interval if isinstance(model.interval, QuantileInterval) else None
    low, high = (None, None) if bounds is None else (bounds.low, bounds.high)
    return {"model": model.predictor, "low": low, "high": high}


def functions_of(system: System, written: Mapping[str, Any]) -> list[Function]:
    """The functions that a document computes, in its order."""
    declared = {one.name: one for one in (*system.request.derive, *system.functions)}
    return [declared[one["name"]] for one in written["functions"]]


def tables(predictor: Predictor) -> dict[str, Any]:
    """A predictor of one number as numbers that NumPy alone can answer from, JSON-ready.

    Raises:
        ExportError: it is neither trees of LightGBM or XGBoost nor a linear model, or gives several numbers.
    """
    if isinstance(predictor, Linear) and predictor.outputs == 1:
        body = json.loads(predictor.to_artifacts()["model.linear.json"])
        return {**body, "form": "line", "weights": body["weights"][0], "bias": body["bias"][0]}
    ensemble = ensemble_of(predictor)
    if ensemble is None or ensemble.outputs != 1:
        raise ExportError(
            f"A model of the kind '{type(predictor).__name__}' has no form for NumPy alone. Trees of LightGBM and "
            "XGBoost and linear models have one; for others use --target onnx."
        )
    return _trees(ensemble)


def _needed(system: System, wanted: set[str], given: Collection[str]) -> tuple[list[dict[str, Any]], list[Function]]:
    """The features that are given, and the functions that are computed, each after those it reads."""
    functions = [*system.request.derive, *system.functions]
    if strange := sorted(set(given) - {one.name for one in functions}):
        raise ExportError(f"System '{system.name}' has no function '{strange[0]}'. It has: {', '.join(one.name for one in functions)}.")
    computed: list[Function] = []
    for function in reversed(functions):
        if function.name in wanted and function.name not in given:
            computed.insert(0, function)
            wanted |= set(function.inputs)
    asked = [one for one in (*system.request.derive, *system.features) if one.name in wanted]
    told = [one for one in asked if isinstance(one, Aggregate) or one.name in given]
    return [{"name": one.name, "type": one.type.value, "default": one.default} for one in told], computed


def _request(system: System) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = []
    for rule in rules(system.request):
        low, high = rule.limits if rule.field.type in (Type.INT, Type.FLOAT, Type.INSTANT) else (None, None)
        field = rule.field
        columns.append({"name": field.name, "type": field.type.value, "nullable": field.nullable, "id": rule.is_id})
        columns[-1] |= {"low": low, "high": high, "allowed": list(rule.allowed)}
    return columns


def _function(function: Function) -> dict[str, Any]:
    return {"name": function.name, "inputs": list(function.inputs), "type": function.type.value, "default": function.default}


def _trees(ensemble: Ensemble) -> dict[str, Any]:
    table: dict[str, Any] = {name: [] for name in ("column", "value", "low", "high", "missing_low", "among", "leaf", "members")}

    def place(branch: Split | float) -> tuple[int, int]:
        """The number that a branch gets, all below it having theirs, and how deep it is."""
        node, split = len(table["leaf"]), branch if isinstance(branch, Split) else None
        members = () if split is None else split.members
        own = (split.column, split.value, split.missing_low) if split is not None else (0, 0.0, False)
        for name, value in zip(("column", "value", "missing_low"), own, strict=True):
            table[name].append(value)
        table["among"].append(len(table["members"]) if members else -1)
        table["members"] += [[int(code) for code in members]] if members else []
        table["leaf"].append(branch if split is None else 0.0)
        table["low"].append(node)
        table["high"].append(node)
        if split is None:
            return node, 0
        (table["low"][node], one), (table["high"][node], other) = place(split.low), place(split.high)
        return node, 1 + max(one, other)

    placed = [place(tree) for tree in ensemble.trees]
    less = any(split.less for split in ensemble.trees)
    return {
        **table,
        **{"form": "trees", "dtype": np.dtype(ensemble.dtype).name, "less": less, "link": ensemble.link},
        **{"steepness": ensemble.steepness, "roots": [node for node, _ in placed], "depth": max(depth for _, depth in placed)},
    }


def plain(written: Mapping[str, Any]) -> dict[str, Any]:
    """A document as JSON would give it back.

    Raises:
        ExportError: a default of a feature is no JSON.
    """
    try:
        return cast("dict[str, Any]", json.loads(json.dumps(written)))
    except TypeError as error:
        raise ExportError(
            f"System '{written['system']}': {error}. Declare defaults that are text, numbers, true, false or null."
        ) from error
