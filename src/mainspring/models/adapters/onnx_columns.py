"""What a net learned of its columns, as ONNX: from the encoded matrix to scaled numbers, indicators and codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mainspring.models.adapters.onnx_graph import FLOAT32, FLOAT64, INT64, Graph
from mainspring.models.adapters.torch_columns import FURTHEST, LearnedColumns, NumberColumn
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

KNOTS, LEVELS = "knots", "levels"


def write_columns(graph: Graph, columns: LearnedColumns, names: Sequence[str], x: str, prefix: str = "") -> str:
    """What `LearnedColumns.apply` gives for ``x`` with the columns ``names``, as float32; ``prefix`` tells its curves from others'."""
    parts = []
    if columns.numbers:
        parts.append(_scaled(graph, list(columns.numbers.values()), _taken(graph, x, names, list(columns.numbers)), prefix))
    if columns.indicated:
        parts.append(graph.add("Cast", graph.add("IsNaN", _taken(graph, x, names, columns.indicated)), to=FLOAT64))
    if columns.sizes:
        parts.append(_codes(graph, list(columns.sizes.values()), _taken(graph, x, names, list(columns.sizes))))
    return graph.add("Cast", graph.add("Concat", *parts, axis=1), to=FLOAT32)


def probes_of(columns: LearnedColumns, names: Sequence[str]) -> Probes:
    """The knots of its numbers, and its codes."""
    edges = [(list(names).index(name), knot) for name, column in columns.numbers.items() for knot in column.knots]
    return Probes(edges, {list(names).index(name): size - 1 for name, size in columns.sizes.items()})


def curve(column: NumberColumn) -> tuple[Floats, Floats]:
    """Knots and levels of a column beyond which its scaled value stays as it is."""
    knots, levels = np.array(column.knots), np.array(column.levels)
    if len(knots) > 2:
        return knots, levels
    reach = np.array([-FURTHEST, FURTHEST])
    return knots[0] + reach * (knots[1] - knots[0]), levels[0] + reach * (levels[1] - levels[0])


def padded(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Knots and levels of shape ``(k, most + 1)``: after its last knot a column has infinite ones, of the last level."""
    most = max(len(knots) for knots, _ in curves) + 1
    knots = [np.append(one, np.full(most - len(one), np.inf)) for one, _ in curves]
    levels = [np.append(one, np.full(most - len(one), one[-1])) for _, one in curves]
    return np.array(knots), np.array(levels)


def _scaled(graph: Graph, columns: Sequence[NumberColumn], values: str, prefix: str) -> str:
    """Straight lines between knots: the number of knots passed finds the piece."""
    curves = [curve(column) for column in columns]
    knots, levels = (graph.constant(table, name=prefix + name) for name, table in zip((KNOTS, LEVELS), padded(curves), strict=True))
    inside = graph.add("Max", values, graph.constant([ends[0] for ends, _ in curves]))
    inside = graph.add("Min", inside, graph.constant([ends[-1] for ends, _ in curves]))
    later = graph.add("Slice", knots, *(graph.constant([at], np.int64) for at in (1, np.iinfo(np.int64).max, 1)))
    passed = graph.add("GreaterOrEqual", graph.add("Unsqueeze", inside, graph.constant([2], np.int64)), later)
    count = graph.add("ReduceSum", graph.add("Cast", passed, to=FLOAT32), graph.constant([2], np.int64), keepdims=0)
    width = graph.add("Gather", graph.add("Shape", knots), graph.constant(1, np.int64))
    piece = graph.add("Add", graph.add("Cast", count, to=INT64), graph.add("Mul", graph.constant(np.arange(len(curves)), np.int64), width))
    following = graph.add("Add", piece, graph.constant(1, np.int64))
    flat = [graph.add("Reshape", table, graph.constant([-1], np.int64)) for table in (knots, levels)]
    (start, end), (low, high) = ([graph.add("Gather", table, at) for at in (piece, following)] for table in flat)
    share = graph.add("Div", graph.add("Sub", inside, start), graph.add("Sub", end, start))
    scaled = graph.add("Add", low, graph.add("Mul", share, graph.add("Sub", high, low)))
    return graph.add("Where", graph.add("IsNaN", values), graph.constant(0.0), scaled)


def _codes(graph: Graph, sizes: Sequence[int], values: str) -> str:
    whole = graph.add("Equal", values, graph.add("Floor", values))
    inside = graph.add(
        "And",
        graph.add("GreaterOrEqual", values, graph.constant(0.0)),
        graph.add("Less", values, graph.constant([size - 1 for size in sizes])),
    )
    learned = graph.add("And", whole, inside)
    return graph.add("Where", learned, graph.add("Add", values, graph.constant(1.0)), graph.constant(0.0))


def _taken(graph: Graph, x: str, names: Sequence[str], chosen: Sequence[str]) -> str:
    return graph.add("Gather", x, graph.constant([list(names).index(name) for name in chosen], np.int64), axis=1)
