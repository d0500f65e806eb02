"""XGBoost's trees as ONNX, in float32 as XGBoost reads, compares and adds."""

from __future__ import annotations

from mainspring.models.adapters.ensembles import of_xgboost
from mainspring.models.adapters.onnx import trees
from mainspring.models.adapters.onnx.graph import FLOAT32, FLOAT64, Graph
from mainspring.models.adapters.xgboost import Trees
from mainspring.models.onnx_file import Description, meanings
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

TOLERANCE = 1e-5


def write(boosted: Trees, reference: Floats) -> bytes:
    """The trees as one node.

    Raises:
        ExportError: the objective is of a kind that no learner here makes.
    """
    ensemble, graph = of_xgboost(boosted), Graph()
    score = graph.add("Cast", trees.write(ensemble, graph, graph.add("Cast", "x", to=FLOAT32)), to=FLOAT64)
    about = Description("xgboost", boosted.names, meanings(ensemble.link, boosted.outputs), tuple(reference.tolist()))
    return graph.finish(about, score, graph.link(ensemble.link, score, boosted.outputs), [len(boosted.names)])


def probes(boosted: Trees) -> Probes:
    """Thresholds of its trees."""
    return of_xgboost(boosted).probes()
