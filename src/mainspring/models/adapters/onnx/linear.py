"""Linear and logistic models as ONNX, in float64."""

from __future__ import annotations

import numpy as np

from mainspring.models.adapters.onnx.graph import FLOAT64, Graph
from mainspring.models.linear import Design, Linear
from mainspring.models.onnx_file import Description, meanings
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

TOLERANCE = 1e-9


def write(model: Linear, reference: Floats) -> bytes:
    """The design and its weighted sum."""
    graph = Graph()
    order, design = _design(graph, model.design)
    sums = graph.add("MatMul", design, graph.constant(model.weights.T[order]))
    score = graph.add("Add", sums, graph.constant(model.bias))
    about = Description("linear", model.names, meanings(model.link, model.outputs), tuple(reference.tolist()))
    return graph.finish(about, score, graph.link(model.link, score, model.outputs), [len(model.names)])


def probes(model: Linear) -> Probes:
    """Its codes: a linear model has no edges."""
    return Probes(categories={place: count for place, count in enumerate(model.design.codes.tolist()) if count})


def _design(graph: Graph, design: Design) -> tuple[list[int], str]:
    """The columns of `Design.apply`, numbers first, then indicators, then codes; and where each is there."""
    starts = np.cumsum([0, *(count or 2 for count in design.codes.tolist())])
    numbers, coded = (np.flatnonzero(one) for one in (design.codes == 0, design.codes > 0))
    parts, order = [], [*starts[numbers], *(starts[numbers] + 1)]
    if len(numbers):
        values = graph.add("Gather", "x", graph.constant(numbers, np.int64), axis=1)
        missing = graph.add("IsNaN", values)
        centred = graph.add("Sub", values, graph.constant(design.means[numbers]))
        standard = graph.add("Div", centred, graph.constant(design.scales[numbers]))
        parts = [graph.add("Where", missing, graph.constant(0.0), standard), graph.add("Cast", missing, to=FLOAT64)]
    if len(coded):
        codes = np.concatenate([np.arange(count) for count in design.codes[coded].tolist()])
        values = graph.add("Gather", "x", graph.constant(np.repeat(coded, design.codes[coded]), np.int64), axis=1)
        parts.append(graph.add("Cast", graph.add("Equal", values, graph.constant(codes)), to=FLOAT64))
        order += [start + code for start, count in zip(starts[coded], design.codes[coded].tolist(), strict=True) for code in range(count)]
    return [int(place) for place in order], graph.add("Concat", *parts, axis=1)
