"""Gradient-boosted trees by XGBoost, stored as its own JSON, answering single rows through its C interface."""

from __future__ import annotations

import ctypes
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.errors import MissingExtraError, RegistryError, TrainingError
from mainspring.models.protocol import Floats, Rows, Watch

MODEL = "model.xgb.json"
_CHECKED_ROWS = 64


@dataclass(frozen=True, slots=True)
class XGBoostLearner:
    """Settings of XGBoost's histogram trees; see `mainspring.models.protocol.Learner`.

    ``objective`` is one of XGBoost's; ``classes`` their number where there are several. Columns of category codes are split as
    numbers. With ``patience`` trees are added until the held-out loss has not fallen for so many, and those up to the best are kept.
    """

    objective: str = "reg:squarederror"
    trees: int = 300
    depth: int = 6
    learning_rate: float = 0.05
    min_leaf_weight: float = 1.0
    row_fraction: float = 1.0
    feature_fraction: float = 1.0
    l2: float = 1.0
    classes: int = 1
    alpha: float = 0.5
    patience: int | None = None

    def fit(
        self,
        rows: Rows,
        *,
        names: Sequence[str],
        categorical: Sequence[str] = (),  # noqa: ARG002
        held_out: Rows | None = None,
        seed: int = 0,
        threads: int = 2,
        start: Trees | None = None,
        watch: Watch | None = None,
    ) -> Trees:
        """Fit trees; with ``start`` further ones to its, ``watch`` after each. The same call on the same machine gives the same bits.

        Raises:
            MissingExtraError: XGBoost is not installed.
            TrainingError: the trees cannot be fitted to such rows.
        """
        xgboost = _xgboost()
        parameters = {
            "objective": self.objective,
            "max_depth": self.depth,
            "eta": self.learning_rate,
            "min_child_weight": self.min_leaf_weight,
            "subsample": self.row_fraction,
            "colsample_bytree": self.feature_fraction,
            "lambda": self.l2,
            "seed": seed,
            "nthread": threads,
            "tree_method": "hist",
        }
        if self.classes > 1:
            parameters["num_class"] = self.classes
        if self.objective == "reg:quantileerror":
            parameters["quantile_alpha"] = self.alpha
        watched: dict[str, Any] = {}
        if held_out is not None and (self.patience is not None or watch is not None):
            held = _matrix(xgboost, held_out)
            watched = {"evals": [(held, "held_out")], "early_stopping_rounds": self.patience, "verbose_eval": False}
            watched["callbacks"] = [] if watch is None else [_watching(xgboost, held, watch)]
        try:
            first = None if start is None else start._model
            model = xgboost.train(parameters, _matrix(xgboost, rows), num_boost_round=self.trees, xgb_model=first, **watched)
        except xgboost.core.XGBoostError as error:
            raise TrainingError(f"XGBoost({self.objective}): {str(error).splitlines()[-1]}. Check the label and the settings.") from error
        stopped = held_out is not None and self.patience is not None
        return Trees(model[: model.best_iteration + 1] if stopped else model, names)

    def load(self, artifacts: Mapping[str, bytes], names: Sequence[str]) -> Trees:
        """The trees in ``model.xgb.json``.

        Raises:
            RegistryError: the text is not a whole XGBoost model, or it has another number of features than ``names``.
            MissingExtraError: XGBoost is not installed.
        """
        xgboost = _xgboost()
        try:
            json.loads(artifacts[MODEL])
            model = xgboost.Booster()
            model.load_model(bytearray(artifacts[MODEL]))
        except (ValueError, xgboost.core.XGBoostError) as error:
            raise RegistryError(
                "Model text: this is not a whole XGBoost model. Register the version again from its training run."
            ) from error
        if model.num_features() != len(names):
            raise RegistryError(
                f"Model text: it has {model.num_features()} features, {len(names)} are declared. It belongs to another system."
            )
        return Trees(model, names)


class Trees:
    """A fitted ensemble of trees over a float64 matrix, NaN for missing; XGBoost reads it as float32.

    A single row goes through ``XGBoosterPredictFromDense`` with everything prepared, which is checked on loading to be bit-identical to
    ``predict`` on random rows, rows of missing values and rows on split thresholds; where it is not, it is not used.
    One `Trees` must not be used by several threads at once.
    """

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        self._model = model
        self.names = tuple(names)
        self.outputs = max(1, int(json.loads(model.save_config())["learner"]["learner_model_param"]["num_class"]))
        self._fast: _SingleRow | None = _SingleRow(model, len(self.names), self.outputs)
        if not _agrees(self):
            self._fast = None

    @property
    def fast(self) -> bool:
        """Whether single rows go through the C interface."""
        return self._fast is not None

    def predict(self, x: Floats) -> Floats:
        """Values, probabilities or scores of shape ``(n,)``, or ``(n, outputs)`` of several classes, for ``x`` of shape ``(n, d)``."""
        return np.asarray(self._model.inplace_predict(x.astype(np.float32)), dtype=np.float64)

    def predict_row(self, x: Floats) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``: shape ``(outputs,)``."""
        return self.predict(x[None, :]).reshape(self.outputs) if self._fast is None else self._fast.predict(x)

    def contributions(self, x: Floats) -> Floats:
        """Exact TreeSHAP values of shape ``(n, d + 1)``, or ``(n, outputs, d + 1)``, of the score before the link; the last is the base."""
        return np.asarray(self._model.predict(_xgboost().DMatrix(x), pred_contribs=True), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Total gain per feature."""
        gain = self._model.get_score(importance_type="total_gain")
        return {name: float(gain.get(f"f{i}", 0.0)) for i, name in enumerate(self.names)}

    def to_artifacts(self) -> dict[str, bytes]:
        """The trees as XGBoost's JSON."""
        return {MODEL: bytes(self._model.save_raw("json"))}


class _SingleRow:
    """XGBoost's prediction in place, with the row's memory described once and a matrix that stays."""

    def __init__(self, model: Any, width: int, outputs: int) -> None:
        core = importlib.import_module("xgboost.core")
        self._predict, self._check, self._model = core._LIB.XGBoosterPredictFromDense, core._check_call, model
        self._row = np.zeros((1, width), dtype=np.float32)
        held = {"data": [self._row.ctypes.data, True], "shape": [1, width], "strides": None, "typestr": "<f4", "version": 3}
        asked = {"type": 0, "training": False, "iteration_begin": 0, "iteration_end": 0, "missing": float("nan"), "strict_shape": False}
        self._interface, self._asked = json.dumps(held).encode(), json.dumps({**asked, "cache_id": 0}).encode()
        self._matrix = core._ProxyDMatrix()
        self._outputs = outputs
        self._found = ctypes.POINTER(ctypes.c_float)()
        self._shape, self._dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        self._results = (ctypes.byref(self._shape), ctypes.byref(self._dimensions), ctypes.byref(self._found))

    def predict(self, x: Floats) -> Floats:
        self._row[0] = x
        self._check(self._predict(self._model.handle, self._interface, self._asked, self._matrix.handle, *self._results))
        return np.array(self._found[: self._outputs], dtype=np.float64)


def _agrees(trees: Trees) -> bool:
    rng = np.random.default_rng(0)
    x = rng.normal(0.0, 100.0, (_CHECKED_ROWS, len(trees.names)))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[0] = np.nan
    for row, (column, value) in enumerate(_thresholds(trees._model)[: _CHECKED_ROWS - 1]):
        x[row + 1, column] = value
    rows = np.array([trees.predict_row(row) for row in x])
    return np.array_equal(rows, trees.predict(x).reshape(rows.shape))


def _thresholds(model: Any) -> list[tuple[int, float]]:
    """Columns and values of splits of the first trees."""
    trees = json.loads(model[: min(2, model.num_boosted_rounds())].save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    return [
        (column, value)
        for tree in trees
        for column, value, left in zip(tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True)
        if left != -1
    ]


def _watching(xgboost: Any, held: Any, watch: Watch) -> Any:
    class Watching(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, _: Any) -> bool:
            watch(epoch + 1, model.predict(held))
            return False

    return Watching()


def _matrix(xgboost: Any, rows: Rows) -> Any:
    return xgboost.DMatrix(rows.x, rows.y, weight=rows.weight, qid=rows.groups)


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise MissingExtraError("The XGBoost model", "xgboost-cpu", "xgboost") from error
    return xgboost
