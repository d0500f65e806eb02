"""The trees of LightGBM and of XGBoost read into one form, so that a row falls into the same leaf and sums are the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mainspring.errors import ExportError
from mainspring.models.adapters.lightgbm import Booster
from mainspring.models.adapters.xgboost import MODEL, Trees
from mainspring.models.trees import Ensemble, Split, always

_NEARLY_ZERO = float(np.float32(1e-35))
_LIGHTGBM = {
    **dict.fromkeys(("regression", "regression_l1", "huber", "quantile", "lambdarank"), "identity"),
    "binary": "logistic",
    "multiclass": "softmax",
}
_XGBOOST = {
    **dict.fromkeys(("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror", "rank:ndcg"), "identity"),
    "binary:logistic": "logistic",
    "multi:softprob": "softmax",
}


def ensemble_of(predictor: object) -> Ensemble | None:
    """The trees of a predictor, None where it has none of these libraries; errors as in `of_lightgbm` and `of_xgboost`."""
    if isinstance(predictor, Booster):
        return of_lightgbm(predictor)
    return of_xgboost(predictor) if isinstance(predictor, Trees) else None


def of_lightgbm(booster: Booster) -> Ensemble:
    """LightGBM's trees, in float64.

    Raises:
        ExportError: the objective, or a tree, is of a kind that no learner here makes.
    """
    dump = booster.ensemble.dump()
    objective, *settings = dump["objective"].split()
    if objective not in _LIGHTGBM or dump["average_output"] or "sqrt" in settings:
        raise ExportError(f"LightGBM({dump['objective']}): there is no other form of it. These have one: {', '.join(_LIGHTGBM)}.")
    steep = next((float(one.split(":")[1]) for one in settings if one.startswith("sigmoid:")), 1.0)
    trees = [_branch(tree["tree_structure"]) for tree in dump["tree_info"]]
    grown = tuple(tree if isinstance(tree, Split) else always(tree) for tree in trees)
    return Ensemble(grown, booster.outputs, np.float64, _LIGHTGBM[objective], steep)


def of_xgboost(trees: Trees) -> Ensemble:
    """XGBoost's trees, in float32; the scores that their sums start from are trees of one leaf.

    Raises:
        ExportError: the objective is of a kind that no learner here makes.
    """
    learner: dict[str, Any] = json.loads(trees.to_artifacts()[MODEL])["learner"]
    objective = learner["objective"]["name"]
    if objective not in _XGBOOST or learner["gradient_booster"]["name"] != "gbtree":
        raise ExportError(f"XGBoost({objective}): there is no other form of it. These have one, of trees: {', '.join(_XGBOOST)}.")
    parts = [_tree(tree) for tree in learner["gradient_booster"]["model"]["trees"]]
    bases = tuple(always(base) for base in _bases(trees, learner))
    return Ensemble(bases + tuple(parts), trees.outputs, np.float32, _XGBOOST[objective])


def _branch(node: dict[str, Any]) -> Split | float:
    if "split_feature" not in node:
        if "leaf_const" in node:
            raise ExportError("LightGBM(linear_tree): there is no other form of it. Train without linear_tree.")
        return float(node["leaf_value"])
    column, low, high = node["split_feature"], _branch(node["left_child"]), _branch(node["right_child"])
    if node["decision_type"] == "==":
        return Split(column, 0.0, low, high, members=tuple(float(code) for code in node["threshold"].split("||")))
    if node["missing_type"] == "Zero":
        raise ExportError("LightGBM(zero_as_missing): there is no other form of it. Train without zero_as_missing.")
    threshold = _beside_zero(float(node["threshold"]))
    return Split(column, threshold, low, high, node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0)


def _beside_zero(threshold: float) -> float:
    """A threshold that parts what LightGBM parts: it reads a number of at most 1e-35 in size as 0."""
    if abs(threshold) > _NEARLY_ZERO:
        return threshold
    return _NEARLY_ZERO if threshold >= 0 else float(np.nextafter(-_NEARLY_ZERO, -np.inf))


def _bases(trees: Trees, learner: dict[str, Any]) -> list[float]:
    """The scores that the trees' sums start from; of a probability, its log odds as XGBoost works them out in float32."""
    given = json.loads(learner["learner_model_param"]["base_score"])
    bases = np.resize(np.array(given, dtype=np.float32), trees.outputs)
    one = np.float32(1)
    return list((-np.log(one / bases - one) if _XGBOOST[learner["objective"]["name"]] == "logistic" else bases).astype(np.float64).tolist())


def _tree(tree: dict[str, Any]) -> Split:
    low, high, columns, values, defaults = (
        tree[name] for name in ("left_children", "right_children", "split_indices", "split_conditions", "default_left")
    )

    def branch(node: int) -> Split | float:
        value = float(np.float32(values[node]))
        if low[node] < 0:
            return value
        return Split(columns[node], value, branch(low[node]), branch(high[node]), bool(defaults[node]), less=True)

    root = branch(0)
    return root if isinstance(root, Split) else always(root)
