"""Nets as ONNX: columns and links by hand, what lies between by PyTorch's own exporter."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from mainspring.models.adapters.onnx_columns import probes_of, write_columns
from mainspring.models.adapters.onnx_graph import FLOAT64, OPSET, Graph, onnx
from mainspring.models.adapters.torch_net import NetPredictor
from mainspring.models.adapters.torch_objectives import Task
from mainspring.models.adapters.torch_runtime import torch
from mainspring.models.onnx_file import Description, meanings
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

TOLERANCE = 1e-4
_LINKS = {"binary": "logistic", "multiclass": "softmax"}


def write(net: NetPredictor, reference: Floats) -> bytes:
    """The net with its columns and its tasks' links."""
    graph = Graph()
    z = write_columns(graph, net.columns, net.names, "x")
    score = write_scores(graph, net.tasks, graph.include(traced(net.net, torch.zeros(2, net.columns.width)), z))
    about = Description("net", net.names, task_meanings(net.tasks), tuple(reference.tolist()))
    return graph.finish(about, score, write_links(graph, net.tasks, score), [len(net.names)])


def probes(net: NetPredictor) -> Probes:
    """Its columns' knots and codes."""
    return probes_of(net.columns, net.names)


def traced(net: Any, example: Any) -> Any:
    """The model of one input and one output that PyTorch writes of a net, for any number of rows.

    By its exporter that traces, which needs no further package and a fiftieth of the time; it is deprecated since PyTorch 2.9.
    """
    file = io.BytesIO()
    axes = {"given": {0: "n"}, "result": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (example,), file, dynamo=False, opset_version=OPSET, input_names=["given"], output_names=["result"], dynamic_axes=axes
        )
    return onnx.load_from_string(file.getvalue())


def write_scores(graph: Graph, tasks: tuple[Task, ...], outputs: str) -> str:
    """A net's outputs in the units of each task, float64."""
    scale, centre = ([getattr(task, name) for task in tasks for _ in range(task.outputs)] for name in ("scale", "centre"))
    scaled = graph.add("Mul", graph.add("Cast", outputs, to=FLOAT64), graph.constant(scale))
    return graph.add("Add", scaled, graph.constant(centre))


def write_links(graph: Graph, tasks: tuple[Task, ...], score: str) -> str:
    """Predictions of all tasks side by side."""
    if len(tasks) == 1:
        return graph.link(_link(tasks[0]), score, tasks[0].outputs)
    ends = np.cumsum([task.outputs for task in tasks])
    parts = [
        graph.link(
            _link(task), graph.add("Gather", score, graph.constant(np.arange(end - task.outputs, end), np.int64), axis=1), task.outputs
        )
        for task, end in zip(tasks, ends, strict=True)
    ]
    return graph.add("Concat", *parts, axis=1)


def task_meanings(tasks: tuple[Task, ...]) -> tuple[str, ...]:
    """What each output is; of several tasks also of which."""
    of_each = [meanings(_link(task), task.outputs) for task in tasks]
    if len(tasks) == 1:
        return of_each[0]
    return tuple(f"task {number}: {meaning}" for number, group in enumerate(of_each) for meaning in group)


def _link(task: Task) -> str:
    return _LINKS.get(task.kind, "identity")
