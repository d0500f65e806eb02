"""Exported nets with INT8 weights, by onnxruntime's own quantization; and curves of columns with no more knots than INT8 can tell apart."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import ExportError, MissingExtraError
from mainspring.models.adapters.onnx.columns import KNOTS, LEVELS, padded
from mainspring.models.adapters.onnx.graph import NET, helper, numpy_helper, onnx
from mainspring.models.adapters.onnx.lean import lean
from mainspring.models.onnx_file import Description, sealed, unsealed
from mainspring.models.protocol import Floats

try:
    from onnxruntime import quantization
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata
except ImportError as error:
    raise MissingExtraError("Quantization", "onnxruntime", "onnx") from error

QUANTIZED = ("MatMul", "Gemm", "Conv", "Gather")
CLOSE = 0.01
_MARK = "INT8"
_AT_ONCE = 64
_STATIC: dict[str, Any] = {
    "quant_format": quantization.QuantFormat.QDQ,
    "activation_type": quantization.QuantType.QUInt8,
    "reduce_range": True,  # seven bits of weight: with eight, sums overflow on machines without VNNI
}


def quantized(file: bytes, calibration: npt.NDArray[Any] | None) -> bytes:
    """See `mainspring.models.export.quantize`: static with ``calibration``, else dynamic.

    Weights and tables of the net itself become INT8, each output channel with its own scale where there are channels; columns and
    links stay as they are, but for their curves: knots that move a scaled number by at most 0.01, half a step of INT8, are left out.
    """
    model = onnx.load_from_string(unsealed(file))
    notes = {one.key: one.value for one in model.metadata_props}
    about = Description.from_metadata(notes)
    around = [node.name for node in model.graph.node if not node.name.startswith(NET)]
    if not any(node.op_type in QUANTIZED for node in model.graph.node if node.name.startswith(NET)) or _MARK in about.made_from:
        raise ExportError(f"Quantization: the file holds {about.made_from}. Only a net can be quantized, and only once; leave it as it is.")
    _thin(model)
    model = onnx.shape_inference.infer_shapes(model)
    add_pre_process_metadata(model)
    shared: dict[str, Any] = {"per_channel": True, "op_types_to_quantize": list(QUANTIZED), "nodes_to_exclude": around}
    shared["weight_type"] = quantization.QuantType.QInt8
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "quantized.onnx"
        if calibration is None:
            quantization.quantize_dynamic(model, result, **shared)
        else:
            quantization.quantize_static(model, result, _Rows(calibration), **shared, **_STATIC)
        done = onnx.load(result)
    lean(done.graph)
    done.ClearField("metadata_props")
    how = "dynamic" if calibration is None else "static"
    about = replace(about, made_from=f"{about.made_from}, {_MARK} {how}", apart=calibration is None)
    helper.set_model_props(done, notes | about.to_metadata())
    return sealed(done.SerializeToString())


class _Rows(quantization.CalibrationDataReader):
    """Calibration rows, 64 at a time."""

    def __init__(self, rows: npt.NDArray[Any]) -> None:
        self._parts: Iterator[npt.NDArray[Any]] = iter([rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)])

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        part = next(self._parts, None)
        return None if part is None else {"x": part}


def _thin(model: Any) -> None:
    """Leave out of each column's curve, in place, the knots that lie close to the straight line between their neighbours."""
    tables = {one.name: one for one in model.graph.initializer}
    for name in [name for name in tables if name.endswith(KNOTS)]:
        pair = [tables[name], tables[name.removesuffix(KNOTS) + LEVELS]]
        rows = zip(*(numpy_helper.to_array(table) for table in pair), strict=True)
        curves = [_thinned(knots[np.isfinite(knots)], levels[np.isfinite(knots)]) for knots, levels in rows]
        for table, values in zip(pair, padded(curves), strict=True):
            table.CopyFrom(numpy_helper.from_array(values, table.name))


def _thinned(knots: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """Source: Douglas and Peucker, "Algorithms for the reduction of the number of points required to represent a digitized line", 1973."""
    kept = sorted({0, len(knots) - 1, *_bends(knots, levels, 0, len(knots) - 1)})
    return knots[kept], levels[kept]


def _bends(knots: Floats, levels: Floats, first: int, last: int) -> list[int]:
    ends = [first, last]
    off = np.abs(np.interp(knots[first : last + 1], knots[ends], levels[ends]) - levels[first : last + 1])
    worst = first + int(off.argmax())
    if off.max() <= CLOSE:
        return []
    return [*_bends(knots, levels, first, worst), worst, *_bends(knots, levels, worst, last)]
