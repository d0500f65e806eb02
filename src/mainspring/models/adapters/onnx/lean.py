"""Quantized files without what follows from the rest of them: the answers are the same to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mainspring.models.adapters.onnx.graph import INT8, INT32, helper, numpy_helper

DEQUANTIZE = "DequantizeLinear"


def lean(graph: Any) -> None:
    """Leave out, in place, what only takes up room.

    These are inferred types; zero points of weights and biases, which are 0; the scale of a bias, which is its input's times its
    weights', computed by whoever loads the file; the upper half of biases that fit into 16 bits; and long names.
    """
    graph.ClearField("value_info")
    _drop_zero_points(graph)
    _compute_biases(graph)
    _drop_unused(graph)
    _shorten(graph)


def _drop_zero_points(graph: Any) -> None:
    zeros = {one.name for one in graph.initializer if one.data_type in (INT8, INT32) and not numpy_helper.to_array(one).any()}
    for node in graph.node:
        if node.op_type == DEQUANTIZE and len(node.input) > 2 and node.input[2] in zeros:
            del node.input[2:]


def _compute_biases(graph: Any) -> None:
    """Every bias is the third of three inputs, of which the first two were quantized as well."""
    tables = {one.name: one for one in graph.initializer}
    wholes = {name for name, one in tables.items() if one.data_type == INT32}
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == DEQUANTIZE}
    before: dict[str, list[Any]] = {}
    for node in graph.node:
        sides = [dequantized[name] for name in node.input if name in dequantized]
        if len(sides) == 3 and sides[2].input[0] in wholes:
            given, weights, bias = sides
            before[bias.output[0]] = [*_scale(given, weights, bias, tables), *_narrowed(bias, tables)]
    nodes = [one for node in graph.node for one in (*before.get(node.output[0], ()), node)]
    graph.ClearField("node")
    graph.node.extend(nodes)


def _scale(given: Any, weights: Any, bias: Any, tables: Mapping[str, Any]) -> list[Any]:
    """The node that computes a bias's scale, where that is the very product."""
    first, second, whole = (numpy_helper.to_array(tables[node.input[1]]) for node in (given, weights, bias))
    if not np.array_equal(first * second, whole):
        return []
    computed = f"{bias.input[1]}, computed"
    bias.input[1] = computed
    return [helper.make_node("Mul", [given.input[1], weights.input[1]], [computed])]


def _narrowed(bias: Any, tables: Mapping[str, Any]) -> list[Any]:
    """The node that widens a bias that is now stored in 16 bits, where it fits."""
    stored = bias.input[0]
    values, most = numpy_helper.to_array(tables[stored]), np.iinfo(np.int16)
    if values.min() < most.min or values.max() > most.max:
        return []
    tables[stored].CopyFrom(numpy_helper.from_array(values.astype(np.int16), stored))
    bias.input[0] = f"{stored}, widened"
    return [helper.make_node("Cast", [stored], [bias.input[0]], to=INT32)]


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    constants = [one for one in graph.initializer if one.name in used]
    graph.ClearField("initializer")
    graph.initializer.extend(constants)


def _shorten(graph: Any) -> None:
    values = [*(one.name for one in graph.initializer), *(name for node in graph.node for name in node.output)]
    kept = {one.name for one in graph.output}
    short = {name: f"{number:x}" for number, name in enumerate(values) if name not in kept}
    for one in graph.initializer:
        one.name = short[one.name]
    for node in graph.node:
        node.name = ""
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
