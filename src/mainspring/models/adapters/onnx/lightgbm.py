"""LightGBM's trees as ONNX, exact: thresholds, leaves and sums in float64."""

from __future__ import annotations

from mainspring.models.adapters.ensembles import of_lightgbm
from mainspring.models.adapters.lightgbm import Booster
from mainspring.models.adapters.onnx import trees
from mainspring.models.adapters.onnx.graph import Graph
from mainspring.models.onnx_file import Description, meanings
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

TOLERANCE = 1e-12


def write(booster: Booster, reference: Floats) -> bytes:
    """The trees as one node.

    Raises:
        ExportError: the objective, or a tree, is of a kind that no learner here makes.
    """
    ensemble, graph = of_lightgbm(booster), Graph()
    score = trees.write(ensemble, graph, "x")
    linked = graph.link(
        ensemble.link, score if ensemble.steepness == 1.0 else graph.add("Mul", score, graph.constant(ensemble.steepness)), booster.outputs
    )
    about = Description("lightgbm", booster.names, meanings(ensemble.link, booster.outputs), tuple(reference.tolist()))
    return graph.finish(about, score, linked, [len(booster.names)])


def probes(booster: Booster) -> Probes:
    """Thresholds and categories of its trees."""
    return of_lightgbm(booster).probes()
