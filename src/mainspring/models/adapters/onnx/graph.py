"""An ONNX graph as it is written: nodes, constants, the links from scores to predictions, and the seal around the finished file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import MissingExtraError
from mainspring.models.onnx_file import Description, sealed, unsealed

try:
    import onnx
    from onnx import helper, numpy_helper
except ImportError as error:
    raise MissingExtraError("An ONNX export", "onnx", "onnx") from error

__all__ = ["Graph", "annotated", "helper", "numpy_helper", "onnx"]

OPSET, ML_OPSET, IR_VERSION = 20, 5, 10
ML, NET = "ai.onnx.ml", "net/"
FLOAT32, FLOAT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
INT8, INT32 = onnx.TensorProto.INT8, onnx.TensorProto.INT32
INT64, UINT8 = onnx.TensorProto.INT64, onnx.TensorProto.UINT8


class Graph:
    """Nodes and constants in the order in which they were added; a value is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._names = 0

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float64, name: str = "") -> str:
        """A value that is part of the file."""
        name = name or self._name("c")
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """What an operator makes of its inputs."""
        name = self._name("v")
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def include(self, model: Any, given: str) -> str:
        """What a whole net of one input and one output makes of ``given``; its names begin with ``net/``."""
        inner = onnx.compose.add_prefix(model, NET).graph
        (source,), (result,) = inner.input, inner.output
        self._nodes.append(helper.make_node("Identity", [given], [source.name], name=self._name("v")))
        self._nodes.extend(inner.node)
        self._constants.extend(inner.initializer)
        return str(result.name)

    def link(self, kind: str, score: str, classes: int) -> str:
        """Predictions from scores of shape ``(n, outputs)``: ``identity``, ``logistic`` or ``softmax``.

        The exponential is a power of e: onnxruntime takes powers one by one, where ``Exp`` and ``Softmax`` round a number alone
        otherwise than among others.
        """
        if kind == "identity":
            return score
        if kind == "logistic":
            one = self.constant(1.0)
            return self.add("Div", one, self.add("Add", one, self.exponential(self.add("Neg", score))))
        raised = self.exponential(self.add("Sub", score, self.add("ReduceMax", score, self.constant([1], np.int64))))
        return self.add("Div", raised, self.add("MatMul", raised, self.constant(np.ones((classes, 1)))))

    def exponential(self, value: str) -> str:
        """The exponential of each number."""
        return self.add("Pow", self.constant(np.e), value)

    def finish(self, description: Description, score: str, prediction: str, shape: Sequence[Any], dtype: int = FLOAT64) -> bytes:
        """The file: input ``x`` of ``shape`` with the batch first, outputs ``prediction`` and ``score``."""
        for name, value in (("score", score), ("prediction", prediction)):
            self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        given = helper.make_tensor_value_info("x", dtype, ["n", *shape], ", ".join(description.columns))
        meaning = ", ".join(description.outputs)
        results = [
            helper.make_tensor_value_info("prediction", FLOAT64, ["n", len(description.outputs)], meaning),
            helper.make_tensor_value_info("score", FLOAT64, ["n", len(description.outputs)], f"before the link: {meaning}"),
        ]
        graph = helper.make_graph(self._nodes, description.made_from, [given], results, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mainspring")
        helper.set_model_props(model, description.to_metadata())
        return sealed(model.SerializeToString())

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"


def annotated(file: bytes, notes: Mapping[str, str]) -> bytes:
    """A file with further entries in its metadata."""
    model = onnx.load_from_string(unsealed(file))
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    return sealed(model.SerializeToString())
