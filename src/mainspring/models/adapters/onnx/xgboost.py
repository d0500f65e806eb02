"""XGBoost's trees as ONNX, in float32 as XGBoost reads, compares and adds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mainspring.errors import ExportError
from mainspring.models.adapters.onnx.graph import FLOAT32, FLOAT64, Graph
from mainspring.models.adapters.onnx.trees import Ensemble, Split, always
from mainspring.models.adapters.xgboost import MODEL, Trees
from mainspring.models.onnx_file import Description, meanings
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

TOLERANCE = 1e-5
_LINKS = {
    **dict.fromkeys(("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror", "rank:ndcg"), "identity"),
    "binary:logistic": "logistic",
    "multi:softprob": "softmax",
}


def write(trees: Trees, reference: Floats) -> bytes:
    """The trees as one node.

    Raises:
        ExportError: the objective is of a kind that no learner here makes.
    """
    learner = _learner(trees)
    objective = learner["objective"]["name"]
    if objective not in _LINKS or learner["gradient_booster"]["name"] != "gbtree":
        raise ExportError(f"XGBoost({objective}): there is no ONNX form of it. These have one, of trees: {', '.join(_LINKS)}.")
    graph, link = Graph(), _LINKS[objective]
    sums = _ensemble(trees, learner).write(graph, graph.add("Cast", "x", to=FLOAT32))
    score = graph.add("Cast", sums, to=FLOAT64)
    about = Description("xgboost", trees.names, meanings(link, trees.outputs), tuple(reference.tolist()))
    return graph.finish(about, score, graph.link(link, score, trees.outputs), [len(trees.names)])


def probes(trees: Trees) -> Probes:
    """Thresholds of its trees."""
    return _ensemble(trees, _learner(trees)).probes()


def _learner(trees: Trees) -> dict[str, Any]:
    learner: dict[str, Any] = json.loads(trees.to_artifacts()[MODEL])["learner"]
    return learner


def _ensemble(trees: Trees, learner: dict[str, Any]) -> Ensemble:
    parts = [_tree(tree) for tree in learner["gradient_booster"]["model"]["trees"]]
    return Ensemble(tuple(always(base) for base in _bases(trees, learner)) + tuple(parts), trees.outputs, np.float32)


def _bases(trees: Trees, learner: dict[str, Any]) -> list[float]:
    """The scores that the trees' sums start from."""
    given = json.loads(learner["learner_model_param"]["base_score"])
    bases = np.resize(np.array(given, dtype=np.float64), trees.outputs)
    return list((np.log(bases / (1 - bases)) if _LINKS[learner["objective"]["name"]] == "logistic" else bases).tolist())


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
