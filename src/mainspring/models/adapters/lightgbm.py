"""Gradient-boosted trees by LightGBM, stored as its own text, answering single rows through its C interface."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import MissingExtraError, RegistryError

Floats = npt.NDArray[np.float64]
_NORMAL = 0
_FLOAT64 = 1
_CHECKED_ROWS = 64


class Booster:
    """A fitted ensemble of trees over a float64 matrix, NaN for missing.

    A single row goes through ``LGBM_BoosterPredictForMatSingleRowFast``, which is checked on loading to be bit-identical to
    ``predict`` on random rows, rows of missing values and rows on split thresholds; where it is not, it is not used.
    One `Booster` must not be used by several threads at once.
    """

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        self._model = model
        self.names = tuple(names)
        self._fast: _SingleRow | None = _SingleRow(model, len(self.names))
        if not _agrees(self):
            self._fast.close()
            self._fast = None

    @classmethod
    def fit(
        cls, x: Floats, y: Floats, *, names: Sequence[str], categorical: Sequence[str], objective: str, trees: int, leaves: int,
        learning_rate: float, min_leaf_rows: int, feature_fraction: float, l2: float, seed: int, threads: int = 2,
    ) -> Booster:  # fmt: skip
        """Fit trees to ``x`` of shape ``(n, d)`` and ``y`` of shape ``(n,)``; the same call on the same machine gives the same bits.

        ``categorical`` names columns of ``x`` that hold category codes.

        Raises:
            MissingExtraError: LightGBM is not installed.
        """
        lightgbm = _lightgbm()
        parameters = {
            "objective": objective,
            "num_leaves": leaves,
            "learning_rate": learning_rate,
            "min_data_in_leaf": min_leaf_rows,
            "feature_fraction": feature_fraction,
            "lambda_l2": l2,
            "seed": seed,
            "max_bin": 127,
            "cat_smooth": 20,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads,
            "verbosity": -1,
        }
        columns = [list(names).index(name) for name in categorical]
        rows = lightgbm.Dataset(x, y, feature_name=_plain(names), categorical_feature=columns, params=parameters, free_raw_data=True)
        return cls(lightgbm.train(parameters, rows, num_boost_round=trees), names)

    @property
    def fast(self) -> bool:
        """Whether single rows go through the C interface."""
        return self._fast is not None

    def predict(self, x: Floats) -> Floats:
        """Scores of shape ``(n,)`` for ``x`` of shape ``(n, d)``."""
        return np.asarray(self._model.predict(x, num_threads=1 if len(x) < 1_000 else 2), dtype=np.float64)

    def predict_row(self, x: Floats) -> float:
        """The score of one row of shape ``(d,)``, float64 and contiguous."""
        if self._fast is None:
            return float(self._model.predict(x[None, :], num_threads=1)[0])
        return self._fast.predict(x)

    def contributions(self, x: Floats) -> Floats:
        """Exact TreeSHAP values of shape ``(n, d + 1)``; the last column is the expected score, the sum of a row its score.

        Source: Lundberg et al., "Consistent individualized feature attribution for tree ensembles", 2018.
        """
        return np.asarray(self._model.predict(x, pred_contrib=True, num_threads=1), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Total gain per feature."""
        return dict(zip(self.names, self._model.feature_importance("gain").tolist(), strict=True))

    def to_text(self) -> str:
        """The trees as LightGBM's model text."""
        return str(self._model.model_to_string())

    @classmethod
    def from_text(cls, text: str, names: Sequence[str]) -> Booster:
        """The trees in ``text``.

        Raises:
            RegistryError: the text is not a whole LightGBM model, or it has another number of features than ``names``.
            MissingExtraError: LightGBM is not installed.
        """
        if not text.startswith("tree\n") or "end of trees" not in text:
            raise RegistryError("Model text: this is not a whole LightGBM model. Register the version again from its training run.")
        try:
            model = _lightgbm().Booster(model_str=text)
        except Exception as error:
            raise RegistryError(f"Model text: LightGBM cannot read it ({error}). Register the version again.") from error
        if model.num_feature() != len(names):
            raise RegistryError(
                f"Model text: it has {model.num_feature()} features, {len(names)} are declared. It belongs to another system."
            )
        return cls(model, names)


class _SingleRow:
    """LightGBM's single-row interface with everything prepared but the row."""

    def __init__(self, model: Any, width: int) -> None:
        basic = importlib.import_module("lightgbm.basic")
        self._library, self._check = basic._LIB, basic._safe_call
        self._config = ctypes.c_void_p()
        self._result = np.zeros(1, dtype=np.float64)
        self._length = ctypes.c_int64(0)
        self._pointer = self._result.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        self._check(
            self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                model._handle, _NORMAL, 0, -1, _FLOAT64, ctypes.c_int32(width), b"num_threads=1", ctypes.byref(self._config)
            )
        )

    def predict(self, x: Floats) -> float:
        self._check(
            self._library.LGBM_BoosterPredictForMatSingleRowFast(
                self._config, ctypes.c_void_p(x.ctypes.data), ctypes.byref(self._length), self._pointer
            )
        )
        return float(self._result[0])

    def close(self) -> None:
        self._check(self._library.LGBM_FastConfigFree(self._config))


def _agrees(booster: Booster) -> bool:
    rng = np.random.default_rng(0)
    x = rng.normal(0.0, 100.0, (_CHECKED_ROWS, len(booster.names)))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[0] = np.nan
    thresholds = [_thresholds(tree["tree_structure"]) for tree in booster._model.dump_model(num_iteration=2)["tree_info"]]
    for row, (column, value) in enumerate([one for tree in thresholds for one in tree][: _CHECKED_ROWS - 1]):
        x[row + 1, column] = value
    return bool([booster.predict_row(np.ascontiguousarray(row)) for row in x] == booster.predict(x).tolist())


def _thresholds(node: dict[str, Any]) -> list[tuple[int, float]]:
    if "split_feature" not in node:
        return []
    own = [(node["split_feature"], float(node["threshold"]))] if node["decision_type"] == "<=" else []
    return own + _thresholds(node["left_child"]) + _thresholds(node["right_child"])


def _plain(names: Sequence[str]) -> list[str]:
    return [f"f{i}" for i in range(len(names))]


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError("The LightGBM model", "lightgbm", "lightgbm") from error
    return lightgbm
