"""Exported files as predictors, answered by onnxruntime alone: whoever serves one needs nothing of what trained it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import MissingExtraError, RegistryError, ServingError, TrainingError
from mainspring.models.onnx_file import Description, unsealed
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats, Rows
from mainspring.models.shapley import sampled

try:
    import onnxruntime
except ImportError as error:
    raise MissingExtraError("A model in ONNX", "onnxruntime", "onnxruntime") from error

MODEL = "model.onnx"
TOLERANCE = 0.0
AT_ONCE = 64
_ORDERS = 4
_PREDICTION, _SCORE = "prediction", "score"
_DTYPES: Mapping[str, npt.DTypeLike] = {"tensor(double)": np.float64, "tensor(uint8)": np.uint8}


@dataclass(frozen=True, slots=True)
class OnnxLearner:
    """Reads exported files; see `mainspring.models.protocol.Learner`."""

    def fit(
        self,
        rows: Rows,  # noqa: ARG002
        *,
        names: Sequence[str],  # noqa: ARG002
        categorical: Sequence[str] = (),  # noqa: ARG002
        held_out: Rows | None = None,  # noqa: ARG002
        seed: int = 0,  # noqa: ARG002
        threads: int = 1,  # noqa: ARG002
    ) -> OnnxPredictor:
        """Refused.

        Raises:
            TrainingError: always.
        """
        raise TrainingError("A model in ONNX is exported, not fitted. Train another kind and export it: mainspring export.")

    def load(self, artifacts: Mapping[str, bytes], names: Sequence[str]) -> OnnxPredictor:
        """The predictor in ``model.onnx``.

        Raises:
            RegistryError: the file is damaged, foreign, or one for other columns.
        """
        if MODEL not in artifacts:
            raise RegistryError(f"Model files: '{MODEL}' is missing. Export the model again: mainspring export.")
        predictor = OnnxPredictor(artifacts[MODEL])
        if predictor.names != tuple(names):
            raise RegistryError(
                f"ONNX file: its columns are {', '.join(predictor.names)}, declared are {', '.join(names)}. It belongs to another system."
            )
        return predictor


class OnnxPredictor:
    """An exported model, on one thread. A row's bits do not hang on how many others there are.

    One must not be used by several threads at once. Of a net over images, ``names`` is empty and ``x`` holds uint8 images of shape
    ``(n, h, w, c)``.

    Raises:
        RegistryError: the file is damaged or foreign.
    """

    def __init__(self, file: bytes) -> None:
        unsealed(file)
        self._file = file
        self._session = _session(file)
        self.about = Description.from_metadata(self._session.get_modelmeta().custom_metadata_map)
        self.names = self.about.columns
        self.outputs = len(self.about.outputs)
        self._at_once = 1 if self.about.apart else AT_ONCE
        (given,) = self._session.get_inputs()
        self._dtype, self._shape = np.dtype(_DTYPES[given.type]), tuple(given.shape[1:])
        self._row = np.zeros((1, *self._shape), self._dtype)
        self._answer = np.zeros((1, self.outputs))
        self._bound = self._session.io_binding()
        self._bound.bind_input("x", "cpu", 0, self._dtype, self._row.shape, self._row.ctypes.data)
        self._bound.bind_output(_PREDICTION, "cpu", 0, np.float64, self._answer.shape, self._answer.ctypes.data)

    def predict(self, x: npt.NDArray[Any]) -> Floats:
        """Values, probabilities or scores of shape ``(n,)``, or ``(n, outputs)``, for ``x`` of shape ``(n, d)``.

        Raises:
            ServingError: the rows have another shape.
        """
        return self._run(_PREDICTION, x)

    def predict_row(self, x: npt.NDArray[Any]) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``, to the bit: shape ``(outputs,)``."""
        self._row[0] = x
        self._session.run_with_iobinding(self._bound)
        row: Floats = self._answer[0].copy()
        return row

    def contributions(self, x: Floats) -> Floats:
        """Shapley values by sampling, of the score before the link, against the file's reference row; shape as in `Predictor`.

        These are not the original's exact TreeSHAP values or integrated gradients, which need the original: they are
        `mainspring.models.shapley.sampled` over four orders and their reverses, and measure from the row of which nothing is known
        (medians where a column never was null).

        Raises:
            ServingError: the file is of a net over images.
        """
        if not self.names:
            raise ServingError("A net over images does not say what each pixel adds.")
        return sampled(lambda rows: self._run(_SCORE, rows), x, np.array(self.about.reference, dtype=np.float64), orders=_ORDERS)

    def importance(self) -> dict[str, float]:
        """Empty: the file has no measure of its own."""
        return {}

    def to_artifacts(self) -> dict[str, bytes]:
        """The file as ``model.onnx``."""
        return {MODEL: self._file}

    def _run(self, output: str, x: npt.NDArray[Any]) -> Floats:
        if x.shape[1:] != self._shape:
            raise ServingError(f"The ONNX model got rows of shape {x.shape[1:]}, it was exported for {self._shape}.")
        starts = range(0, len(x), self._at_once)
        parts = [self._session.run([output], {"x": np.ascontiguousarray(x[at : at + self._at_once], self._dtype)})[0] for at in starts]
        whole: Floats = np.concatenate([np.empty((0, self.outputs)), *parts])
        return whole[:, 0] if self.outputs == 1 else whole


def write(predictor: OnnxPredictor, reference: Floats) -> bytes:  # noqa: ARG001
    """Its file as it is."""
    return predictor.to_artifacts()[MODEL]


def probes(predictor: OnnxPredictor) -> Probes:  # noqa: ARG001
    """None are known of a file."""
    return Probes()


def _session(file: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RegistryError(f"ONNX file: onnxruntime cannot read it ({str(error).splitlines()[0]}). Export the model again.") from error
