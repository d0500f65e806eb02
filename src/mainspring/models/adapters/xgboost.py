"""Gradient-boosted trees by XGBoost, stored as its own JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.errors import MissingExtraError, RegistryError, TrainingError
from mainspring.models.protocol import Floats, Rows, Watch

MODEL = "model.xgb.json"


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
    """A fitted ensemble of trees over a float64 matrix, NaN for missing; XGBoost reads it as float32."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        self._model = model
        self.names = tuple(names)
        self.outputs = max(1, int(json.loads(model.save_config())["learner"]["learner_model_param"]["num_class"]))

    def predict(self, x: Floats) -> Floats:
        """Values, probabilities or scores of shape ``(n,)``, or ``(n, outputs)`` of several classes, for ``x`` of shape ``(n, d)``."""
        return np.asarray(self._model.inplace_predict(x.astype(np.float32)), dtype=np.float64)

    def predict_row(self, x: Floats) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``: shape ``(outputs,)``."""
        return self.predict(x[None, :]).reshape(self.outputs)

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
