"""LightGBM's trees as ONNX, exact: thresholds, leaves and sums in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from mainspring.errors import ExportError
from mainspring.models.adapters.lightgbm import Booster
from mainspring.models.adapters.onnx.graph import Graph
from mainspring.models.adapters.onnx.trees import Ensemble, Split, always
from mainspring.models.onnx_file import Description, meanings
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

TOLERANCE = 1e-12
_NEARLY_ZERO = float(np.float32(1e-35))
_LINKS = {
    **dict.fromkeys(("regression", "regression_l1", "huber", "quantile", "lambdarank"), "identity"),
    "binary": "logistic",
    "multiclass": "softmax",
}


def write(booster: Booster, reference: Floats) -> bytes:
    """The trees as one node.

    Raises:
        ExportError: the objective, or a tree, is of a kind that no learner here makes.
    """
    dump = booster.ensemble.dump()
    objective, *settings = dump["objective"].split()
    if objective not in _LINKS or dump["average_output"] or "sqrt" in settings:
        raise ExportError(f"LightGBM({dump['objective']}): there is no ONNX form of it. These have one: {', '.join(_LINKS)}.")
    graph, link = Graph(), _LINKS[objective]
    score = _ensemble(booster, dump).write(graph, "x")
    steep = next((float(one.split(":")[1]) for one in settings if one.startswith("sigmoid:")), 1.0)
    linked = graph.link(link, score if steep == 1.0 else graph.add("Mul", score, graph.constant(steep)), booster.outputs)
    about = Description("lightgbm", booster.names, meanings(link, booster.outputs), tuple(reference.tolist()))
    return graph.finish(about, score, linked, [len(booster.names)])


def probes(booster: Booster) -> Probes:
    """Thresholds and categories of its trees."""
    return _ensemble(booster, booster.ensemble.dump()).probes()


def _ensemble(booster: Booster, dump: dict[str, Any]) -> Ensemble:
    trees = [_branch(tree["tree_structure"]) for tree in dump["tree_info"]]
    return Ensemble(tuple(tree if isinstance(tree, Split) else always(tree) for tree in trees), booster.outputs, np.float64)


def _branch(node: dict[str, Any]) -> Split | float:
    if "split_feature" not in node:
        if "leaf_const" in node:
            raise ExportError("LightGBM(linear_tree): there is no ONNX form of it. Train without linear_tree.")
        return float(node["leaf_value"])
    column, low, high = node["split_feature"], _branch(node["left_child"]), _branch(node["right_child"])
    if node["decision_type"] == "==":
        return Split(column, 0.0, low, high, members=tuple(float(code) for code in node["threshold"].split("||")))
    if node["missing_type"] == "Zero":
        raise ExportError("LightGBM(zero_as_missing): there is no ONNX form of it. Train without zero_as_missing.")
    threshold = _beside_zero(float(node["threshold"]))
    return Split(column, threshold, low, high, node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0)


def _beside_zero(threshold: float) -> float:
    """A threshold that parts what LightGBM parts: it reads a number of at most 1e-35 in size as 0."""
    if abs(threshold) > _NEARLY_ZERO:
        return threshold
    return _NEARLY_ZERO if threshold >= 0 else float(np.nextafter(-_NEARLY_ZERO, -np.inf))
