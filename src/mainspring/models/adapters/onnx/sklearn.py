"""Trees and forests of scikit-learn as ONNX: values read as float32 and compared as float64, as scikit-learn does."""

from __future__ import annotations

from typing import Any

import numpy as np

from mainspring.errors import ExportError
from mainspring.models.adapters.onnx import trees
from mainspring.models.adapters.onnx.graph import FLOAT32, FLOAT64, Graph
from mainspring.models.adapters.sklearn import Estimator
from mainspring.models.onnx_file import Description, meanings
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats
from mainspring.models.trees import Ensemble, Split, always

TOLERANCE = 1e-9
_TREES = ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees")
_LINKS = {"regression": "identity", "binary": "logistic", "multiclass": "softmax"}


def write(estimator: Estimator, reference: Floats) -> bytes:
    """The mean of the trees' leaves; an output's trees are its own.

    Raises:
        ExportError: the estimator is no tree and no forest.
    """
    graph, ensemble = Graph(), _ensemble(estimator)
    score = trees.write(ensemble, graph, graph.add("Cast", graph.add("Cast", "x", to=FLOAT32), to=FLOAT64))
    about = Description("sklearn", estimator.names, meanings(_LINKS[estimator._task], estimator.outputs), tuple(reference.tolist()))
    return graph.finish(about, score, score, [len(estimator.names)])


def probes(estimator: Estimator) -> Probes:
    """Thresholds of its trees."""
    return _ensemble(estimator).probes()


def _ensemble(estimator: Estimator) -> Ensemble:
    name = type(estimator._model).__name__
    if name.removesuffix("Regressor").removesuffix("Classifier") not in _TREES:
        raise ExportError(f"Sklearn('{name}'): there is no ONNX form of it. These have one: {', '.join(_TREES)}, of both tasks.")
    grown = [one.tree_ for one in getattr(estimator._model, "estimators_", [estimator._model])]
    chosen = [1] if estimator._task == "binary" else range(estimator.outputs)
    parts = [_tree(tree, tree.value[:, 0, output] / len(grown)) for tree in grown for output in chosen]
    return Ensemble(tuple(parts), estimator.outputs, np.float64)


def _tree(tree: Any, leaves: Floats) -> Split:
    low, high, columns, values, missing = (
        getattr(tree, name).tolist() for name in ("children_left", "children_right", "feature", "threshold", "missing_go_to_left")
    )

    def branch(node: int) -> Split | float:
        if low[node] < 0:
            return float(leaves[node])
        return Split(columns[node], values[node], branch(low[node]), branch(high[node]), bool(missing[node]))

    root = branch(0)
    return root if isinstance(root, Split) else always(root)
