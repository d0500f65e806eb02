"""Nets over images as ONNX."""

from __future__ import annotations

from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.adapters.nets.vision import ImagePredictor
from mainspring.models.adapters.onnx.graph import UINT8, Graph
from mainspring.models.adapters.onnx.net import TOLERANCE, task_meanings, traced, write_links, write_scores
from mainspring.models.onnx_file import Description
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

__all__ = ["TOLERANCE", "probes", "write"]


def write(net: ImagePredictor, reference: Floats) -> bytes:  # noqa: ARG001
    """The net from bytes to predictions; it has no columns."""
    graph, tasks = Graph(), (net.task,)
    score = write_scores(graph, tasks, graph.include(traced(net.net, torch.zeros(2, *net.size, dtype=torch.uint8)), "x"))
    about = Description("image net", (), task_meanings(tasks))
    return graph.finish(about, score, write_links(graph, tasks, score), net.size, UINT8)


def probes(net: ImagePredictor) -> Probes:  # noqa: ARG001
    """None: an image has no missing values and no codes."""
    return Probes()
