"""Gradient-boosted trees by LightGBM, stored as its own text, answering single rows through its C interface."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from mainspring.errors import MissingExtraError, RegistryError, TrainingError
from mainspring.models.adapters.lightgbm_library import Ensemble, check, library
from mainspring.models.protocol import Floats, Rows, Watch
from mainspring.models.pruning import Progress, Prune

MODEL = "model.txt"
_NORMAL = 0
_FLOAT64 = 1
_CHECKED_ROWS = 64


@dataclass(frozen=True, slots=True)
class LightGBMLearner:
    """Settings of LightGBM by its own names, as JSON; see `mainspring.models.protocol.Learner`.

    ``objective`` is one of LightGBM's; ``classes`` their number where there are several; ``alpha`` the quantile of ``quantile``.
    ``row_fraction`` is the share of the rows, or whole queries where they are ranked, that is drawn for each tree.
    With ``patience`` trees are added until the held-out loss has not fallen for so many, and those up to the best are kept.
    """

    objective: str = "regression"
    trees: int = 300
    leaves: int = 31
    learning_rate: float = 0.05
    min_leaf_rows: int = 20
    row_fraction: float = 1.0
    feature_fraction: float = 1.0
    l2: float = 1.0
    bins: int = 1_023
    classes: int = 1
    alpha: float = 0.5
    patience: int | None = None

    def fit(
        self,
        rows: Rows,
        *,
        names: Sequence[str],
        categorical: Sequence[str] = (),
        held_out: Rows | None = None,
        seed: int = 0,
        threads: int = 2,
        start: Booster | None = None,
        watch: Watch | None = None,
    ) -> Booster:
        """Fit trees; with ``start`` further ones to its, ``watch`` after each. The same call on the same machine gives the same bits.

        Raises:
            MissingExtraError: LightGBM is not installed.
            TrainingError: the trees cannot be fitted to such rows.
        """
        lightgbm = _lightgbm()
        parameters = {
            "objective": self.objective,
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_leaf_rows,
            "bagging_fraction": self.row_fraction,
            "bagging_freq": 1 if self.row_fraction < 1 else 0,
            "bagging_by_query": rows.groups is not None,
            "feature_fraction": self.feature_fraction,
            "lambda_l2": self.l2,
            "alpha": self.alpha,
            "num_class": self.classes,
            "seed": seed,
            "max_bin": self.bins,
            "cat_smooth": 20,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads,
            "verbosity": -1,
        }
        columns = [list(names).index(name) for name in categorical]
        data = _dataset(
            lightgbm, rows, feature_name=_plain(names), categorical_feature=columns, params=parameters, free_raw_data=start is None
        )
        watched: dict[str, Any] = {}
        if held_out is not None and (self.patience is not None or watch is not None):
            watched["valid_sets"] = [_dataset(lightgbm, held_out, reference=data, params=parameters)]
        if held_out is not None and self.patience is not None:
            watched["callbacks"] = [lightgbm.early_stopping(self.patience, first_metric_only=True, verbose=False)]
        if held_out is not None and watch is not None:
            watched["feval"] = _watching(watch)
        try:
            first = None if start is None else lightgbm.Booster(model_str=start.ensemble.text)
            model = lightgbm.train(parameters, data, num_boost_round=self.trees, init_model=first, **watched)
        except lightgbm.basic.LightGBMError as error:
            raise TrainingError(f"LightGBM({self.objective}): {error}. Check the label and the settings.") from error
        return Booster(Ensemble(model.model_to_string(num_iteration=model.best_iteration if "callbacks" in watched else -1)), names)

    def load(self, artifacts: Mapping[str, bytes], names: Sequence[str]) -> Booster:
        """The trees in ``model.txt``.

        Raises:
            RegistryError: the text is not a whole LightGBM model, or it has another number of features than ``names``.
            MissingExtraError: LightGBM is not installed.
        """
        text = artifacts[MODEL].decode(errors="replace")
        if not text.startswith("tree\n") or "end of trees" not in text:
            raise RegistryError("Model text: this is not a whole LightGBM model. Register the version again from its training run.")
        try:
            ensemble = Ensemble(text)
        except RegistryError as error:
            raise RegistryError(f"Model text: LightGBM cannot read it ({error}). Register the version again.") from error
        if ensemble.features != len(names):
            raise RegistryError(
                f"Model text: it has {ensemble.features} features, {len(names)} are declared. It belongs to another system."
            )
        return Booster(ensemble, names)


class Booster:
    """A fitted ensemble of trees over a float64 matrix, NaN for missing.

    A single row goes through ``LGBM_BoosterPredictForMatSingleRowFast``, which is checked on loading to be bit-identical to
    ``predict`` on random rows, rows of missing values and rows on split thresholds; where it is not, it is not used.
    One `Booster` must not be used by several threads at once.
    """

    def __init__(self, ensemble: Ensemble, names: Sequence[str]) -> None:
        self.ensemble = ensemble
        self.names = tuple(names)
        self.outputs = ensemble.outputs
        self._fast: _SingleRow | None = _SingleRow(ensemble)
        if not _agrees(self):
            self._fast.close()
            self._fast = None

    @property
    def fast(self) -> bool:
        """Whether single rows go through the C interface."""
        return self._fast is not None

    def predict(self, x: Floats) -> Floats:
        """Values, probabilities or scores of shape ``(n,)``, or ``(n, outputs)`` of several classes, for ``x`` of shape ``(n, d)``."""
        return self.ensemble.predict(x, threads=1 if len(x) < 1_000 else 2)

    def predict_row(self, x: Floats) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``, float64 and contiguous: shape ``(outputs,)``."""
        if self._fast is None:
            return np.atleast_1d(self.ensemble.predict(x[None, :], threads=1)[0])
        return self._fast.predict(x)

    def contributions(self, x: Floats) -> Floats:
        """Exact TreeSHAP values of shape ``(n, d + 1)``, or ``(n, outputs, d + 1)``, of the score before the link.

        The last column is the expected score, the sum of a row its score. Source: Lundberg et al., "Consistent individualized
        feature attribution for tree ensembles", 2018.
        """
        values = self.ensemble.predict(x, threads=1, contributions=True)
        return values if self.outputs == 1 else values.reshape(len(x), self.outputs, -1)

    def importance(self) -> dict[str, float]:
        """Total gain per feature."""
        return dict(zip(self.names, self.ensemble.gains(), strict=True))

    def to_artifacts(self) -> dict[str, bytes]:
        """The trees as LightGBM's model text."""
        return {MODEL: self.ensemble.text.encode()}


def pruned_trees(
    predictor: Booster, settings: Mapping[str, Any], step: Prune, rows: Rows, categorical: Sequence[str],  # noqa: ARG001
    *, seed: int, threads: int, progress: Progress,  # noqa: ARG001
) -> tuple[Booster, dict[str, Any]]:  # fmt: skip
    """The first trees, without the last ``step.share`` of them; see `mainspring.models.pruning.prune`. Nothing is fitted again."""
    kept = max(1, round(predictor.ensemble.iterations * (1 - step.share)))
    progress(1, 1)
    return Booster(predictor.ensemble.first(kept), predictor.names), {**settings, "trees": kept}


class _SingleRow:
    """LightGBM's single-row interface with everything prepared but the row."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._library, self._config = library(), ctypes.c_void_p()
        self._x, self._result = np.zeros(ensemble.features), np.zeros(ensemble.outputs)
        width = ctypes.c_int32(ensemble.features)
        check(
            self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                ensemble.handle, _NORMAL, 0, -1, _FLOAT64, width, b"num_threads=1", ctypes.byref(self._config)
            )
        )
        self._call = self._library.LGBM_BoosterPredictForMatSingleRowFast
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (self._x, self._result)]
        self._prepared = self._config, pointers[0], ctypes.byref(ctypes.c_int64(0)), pointers[1]

    def predict(self, x: Floats) -> Floats:
        self._x[:] = x
        if status := self._call(*self._prepared):
            check(status)
        return self._result.copy()

    def close(self) -> None:
        check(self._library.LGBM_FastConfigFree(self._config))


def _agrees(booster: Booster) -> bool:
    rng = Random(0)
    x = np.array([[rng.gauss(0.0, 100.0) if rng.random() < 0.8 else np.nan for _ in booster.names] for _ in range(_CHECKED_ROWS)])
    x[0] = np.nan
    thresholds = [_thresholds(tree["tree_structure"]) for tree in booster.ensemble.dump(2)["tree_info"]]
    for row, (column, value) in enumerate([one for tree in thresholds for one in tree][: _CHECKED_ROWS - 1]):
        x[row + 1, column] = value
    rows = np.array([booster.predict_row(np.ascontiguousarray(row)) for row in x])
    return np.array_equal(rows, booster.predict(x).reshape(rows.shape))


def _thresholds(node: dict[str, Any]) -> list[tuple[int, float]]:
    if "split_feature" not in node:
        return []
    own = [(node["split_feature"], float(node["threshold"]))] if node["decision_type"] == "<=" else []
    return own + _thresholds(node["left_child"]) + _thresholds(node["right_child"])


def _dataset(lightgbm: Any, rows: Rows, **settings: Any) -> Any:
    sizes = None if rows.groups is None else np.diff(np.flatnonzero(np.diff(rows.groups, prepend=np.nan, append=np.nan) != 0))
    return lightgbm.Dataset(rows.x, rows.y, weight=rows.weight, group=sizes, **settings)


def _watching(watch: Watch) -> Callable[[Floats, Any], tuple[str, float, bool]]:
    """A measure for LightGBM, always 0, that is asked for after each round."""
    rounds = itertools.count(1)

    def measure(predicted: Floats, _: Any) -> tuple[str, float, bool]:
        watch(next(rounds), predicted)
        return "watched", 0.0, True

    return measure


def _plain(names: Sequence[str]) -> list[str]:
    return [f"f{i}" for i in range(len(names))]


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError("The LightGBM model", "lightgbm", "lightgbm") from error
    return lightgbm
