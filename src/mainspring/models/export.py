"""Models as ONNX files: one file that answers as the model does, smaller if asked, and served without the library that trained it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from mainspring.errors import ExportError, did_you_mean
from mainspring.models.learners import load_predictor
from mainspring.models.parity import Parity, Tolerance, compared
from mainspring.models.protocol import Floats, Predictor
from mainspring.models.tabular import TabularModel

Values = npt.NDArray[Any]
How = Literal["dynamic", "static"]
Side = Literal["user", "item"]

_WRITERS: Mapping[str, str] = {
    "Booster": "onnx_lightgbm",
    "Trees": "onnx_xgboost",
    "Linear": "onnx_linear",
    "NetPredictor": "onnx_net",
    "TwoTowerPredictor": "onnx_towers",
    "ImagePredictor": "onnx_vision",
    "Estimator": "onnx_sklearn",
    "OnnxPredictor": "onnxruntime",
}


class Answering(Protocol):
    """What can be exported: a `Predictor`, or a net over images."""

    @property
    def outputs(self) -> int:
        """How many numbers it gives a row."""
        ...

    def predict(self, x: Values) -> Floats:
        """Answers of shape ``(n,)`` or ``(n, outputs)``."""
        ...


def to_onnx(predictor: Answering, *, reference: Floats | None = None) -> bytes:
    """The predictor as one ONNX file, which `load_onnx` and any other runtime reads.

    Input ``x`` of shape ``(n, d)``, float64 (images: uint8 of shape ``(n, h, w, c)``); outputs ``prediction`` and ``score`` (before the
    link), float64 of shape ``(n, outputs)``. ``reference`` of shape ``(d,)`` is the row that contributions are measured against:
    without it, a row of missing values.

    Raises:
        ExportError: there is no ONNX form of such a predictor.
        MissingExtraError: onnx is not installed.
    """
    names = getattr(predictor, "names", ())
    written: bytes = _writer(predictor).write(predictor, np.full(len(names), np.nan) if reference is None else reference)
    return written


def tower_to_onnx(towers: Answering, side: Side) -> bytes:
    """One of two towers as an ONNX file: its predictions are vectors of length 1, of shape ``(n, dim)``, for that side's own columns.

    Raises:
        ExportError: these are no towers, or there is no such side.
        MissingExtraError: onnx is not installed.
    """
    if side not in get_args(Side) or _WRITERS.get(type(towers).__name__) != "onnx_towers":
        raise ExportError(f"There is no '{side}' tower in a model of the kind '{type(towers).__name__}'. Two towers have user and item.")
    written: bytes = _writer(towers).write_tower(towers, side)
    return written


def load_onnx(exported: bytes, names: Sequence[str] | None = None) -> Predictor:
    """The `mainspring.models.adapters.onnxruntime.OnnxPredictor` of an exported file; with ``names`` it must be one for these columns.

    Raises:
        RegistryError: the file is damaged, foreign, or one for other columns.
        MissingExtraError: onnxruntime is not installed.
    """
    found: Predictor = importlib.import_module("mainspring.models.adapters.onnxruntime").OnnxPredictor(exported)
    return found if names is None else load_predictor("onnx", {}, found.to_artifacts(), names)


def parity(predictor: Answering, exported: bytes, x: Values, *, decide_at: Sequence[float] = ()) -> Parity:
    """How far an exported file's answers are from the predictor's.

    On the rows ``x``, on rows of ``x`` put exactly on split thresholds and one unit in the last place beside, with missing values, and
    with categories that were never learned. ``decide_at`` are thresholds of decisions.

    Raises:
        ExportError: there are no rows.
        RegistryError: the file is damaged or foreign.
    """
    if not len(x):
        raise ExportError("Parity: there are no rows to compare answers on. Give at least one.")
    return compared(predictor.predict, load_onnx(exported).predict, x, _writer(predictor).probes(predictor), decide_at)


def quantize(exported: bytes, how: How, *, calibration: Values | None = None) -> bytes:
    """An exported net with INT8 weights and tables, about a quarter of the size.

    ``dynamic`` measures the range of each activation as it comes, ``static`` on the rows ``calibration`` beforehand.

    Raises:
        ExportError: the file is no net, or ``static`` has no rows to calibrate on.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    if how not in get_args(How):
        raise ExportError(f"Quantization '{how}' is not known.{did_you_mean(how, get_args(How))}")
    if (how == "static") != (calibration is not None and len(calibration) > 0):
        raise ExportError("Quantization: 'static' needs rows to calibrate on, 'dynamic' takes none. Give calibration=rows to 'static'.")
    done: bytes = importlib.import_module("mainspring.models.adapters.onnx_quantize").quantized(exported, calibration)
    return done


def as_onnx(
    model: TabularModel, x: Floats, *, tolerance: Tolerance | None = None, decide_at: Sequence[float] = ()
) -> tuple[TabularModel, Parity]:
    """The model with its predictor exported and held against itself on encoded rows ``x``; it is registered and served like any other.

    Without ``tolerance`` that of its kind holds: relative differences of 1e-12 for LightGBM, 1e-9 for linear models, 1e-5 for XGBoost and
    1e-4 for nets, and no row that is decided otherwise.

    Raises:
        ExportError: there is no ONNX form of it, or the file is not at par.
    """
    exported = to_onnx(model.predictor, reference=model.encoder.transform_row([None] * len(model.encoder.names)))
    found = parity(model.predictor, exported, x, decide_at=decide_at)
    if not found.within(tolerance or Tolerance(_writer(model.predictor).TOLERANCE)):
        raise ExportError("\n".join([f"The exported file answers otherwise than the {model.kind} model:", *found.lines()]))
    return replace(model, kind="onnx", settings={}, predictor=load_onnx(exported)), found


def annotated(exported: bytes, notes: Mapping[str, str]) -> bytes:
    """An exported file with further entries in its metadata."""
    done: bytes = importlib.import_module("mainspring.models.adapters.onnx_graph").annotated(exported, notes)
    return done


def _writer(predictor: Answering) -> Any:
    kind = type(predictor).__name__
    if kind not in _WRITERS:
        raise ExportError(f"There is no ONNX form of a model of the kind '{kind}'. These have one: {', '.join(_WRITERS)}.")
    return importlib.import_module(f"mainspring.models.adapters.{_WRITERS[kind]}")
