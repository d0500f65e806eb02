"""scikit-learn: linear models fitted by it and kept as numbers, and any other estimator of it, kept by skops."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mainspring.errors import DeclarationError, MissingExtraError, RegistryError, TrainingError
from mainspring.models.linear import LINKS, Design, Linear, load_linear
from mainspring.models.protocol import Floats, Rows
from mainspring.models.shapley import sampled

MODEL = "model.skops"
MIDDLE = "medians.json"
TASKS = ("regression", "binary", "multiclass")


@dataclass(frozen=True, slots=True)
class LinearLearner:
    """Ridge regression or L2-penalised logistic regression; see `mainspring.models.protocol.Learner`.

    ``l2`` is the penalty on standardised columns, against the mean loss of a row.
    """

    task: str = "regression"
    l2: float = 1e-4

    def fit(
        self,
        rows: Rows,
        *,
        names: Sequence[str],
        categorical: Sequence[str] = (),
        held_out: Rows | None = None,  # noqa: ARG002
        seed: int = 0,  # noqa: ARG002
        threads: int = 2,  # noqa: ARG002
    ) -> Linear:
        """Fit weights to standardised columns.

        Raises:
            MissingExtraError: scikit-learn is not installed.
            TrainingError: there is one class only.
        """
        linear = _module("sklearn.linear_model")
        design = Design.of(rows.x, [list(names).index(name) for name in categorical])
        x = design.apply(rows.x)
        try:
            if self.task == "regression":
                model = linear.Ridge(alpha=self.l2 * len(rows)).fit(x, rows.y, sample_weight=rows.weight)
            else:
                model = linear.LogisticRegression(C=1 / (self.l2 * len(rows)), max_iter=1_000).fit(x, rows.y, sample_weight=rows.weight)
        except ValueError as error:
            raise TrainingError(f"Linear({self.task}): {error}. Check the label.") from error
        return Linear(
            tuple(names), design, np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_).astype(np.float64), LINKS[self.task]
        )

    def load(self, artifacts: Mapping[str, bytes], names: Sequence[str]) -> Linear:
        """See `load_linear`."""
        return load_linear(artifacts, names)


@dataclass(frozen=True, slots=True)
class SklearnLearner:
    """An estimator of scikit-learn by its path, such as ``sklearn.ensemble.RandomForestClassifier``, with its own settings.

    Nulls are NaN in what it is fitted on: choose one that takes them, or ``sklearn.pipeline`` with an imputer is needed.
    """

    estimator: str
    task: str = "regression"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def fit(
        self,
        rows: Rows,
        *,
        names: Sequence[str],
        categorical: Sequence[str] = (),  # noqa: ARG002
        held_out: Rows | None = None,  # noqa: ARG002
        seed: int = 0,
        threads: int = 2,
    ) -> Estimator:
        """Fit the estimator, with ``random_state`` and ``n_jobs`` where it has them.

        Raises:
            MissingExtraError: scikit-learn is not installed.
            DeclarationError: there is no such estimator, or it does not take these settings.
            TrainingError: it cannot be fitted to such rows.
        """
        module, _, name = self.estimator.rpartition(".")
        try:
            made = getattr(_module(module), name)(**self.settings)
        except (AttributeError, TypeError) as error:
            raise DeclarationError(f"Sklearn('{self.estimator}'): {error}. Name a class of scikit-learn and its own settings.") from error
        given = {"random_state": seed, "n_jobs": threads}
        made.set_params(**{key: value for key, value in given.items() if key in made.get_params() and key not in self.settings})
        try:
            made.fit(rows.x, rows.y, **({} if rows.weight is None else {"sample_weight": rows.weight}))
        except ValueError as error:
            raise TrainingError(f"Sklearn('{self.estimator}'): {str(error).splitlines()[0]} Choose an estimator that takes it.") from error
        middle = np.nanmedian(np.where(np.isnan(rows.x).all(axis=0), 0.0, rows.x), axis=0)
        return Estimator(made, names, self.task, middle)

    def load(self, artifacts: Mapping[str, bytes], names: Sequence[str]) -> Estimator:
        """The estimator that skops wrote; one that holds anything but scikit-learn's and NumPy's own types is refused.

        Raises:
            RegistryError: the file is damaged, holds foreign types, or is one for another number of columns.
            MissingExtraError: skops is not installed.
        """
        skops = _module("skops.io")
        try:
            foreign = [one for one in skops.get_untrusted_types(data=artifacts[MODEL]) if not one.startswith(("sklearn.", "numpy."))]
            if foreign:
                raise RegistryError(f"Model file: it holds {', '.join(foreign)}, which is not scikit-learn's. It is not loaded.")
            model = skops.loads(artifacts[MODEL], trusted=skops.get_untrusted_types(data=artifacts[MODEL]))
            middle = np.array(json.loads(artifacts[MIDDLE]), dtype=np.float64)
        except RegistryError:
            raise
        except Exception as error:
            raise RegistryError(f"Model file: skops cannot read it ({error}). Register the version again.") from error
        if model.n_features_in_ != len(names):
            raise RegistryError(
                f"Model file: it has {model.n_features_in_} features, {len(names)} are declared. It belongs to another system."
            )
        return Estimator(model, names, self.task, middle)


class Estimator:
    """A fitted estimator of scikit-learn; a classifier gives probabilities. ``middle`` of shape ``(d,)`` are the columns' medians."""

    def __init__(self, model: Any, names: Sequence[str], task: str, middle: Floats) -> None:
        self._model = model
        self._middle = middle
        self._task = task
        self.names = tuple(names)
        self.outputs = len(model.classes_) if task == "multiclass" else 1

    def predict(self, x: Floats) -> Floats:
        """Values or probabilities of shape ``(n,)``, or ``(n, outputs)`` of several classes, for ``x`` of shape ``(n, d)``."""
        if self._task == "regression":
            return np.asarray(self._model.predict(x), dtype=np.float64)
        shares = np.asarray(self._model.predict_proba(x), dtype=np.float64)
        return shares[:, 1] if self._task == "binary" else shares

    def predict_row(self, x: Floats) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``: shape ``(outputs,)``."""
        return self.predict(x[None, :]).reshape(self.outputs)

    def contributions(self, x: Floats) -> Floats:
        """Shapley values by sampling, of what `predict` gives, against the row of medians; see `mainspring.models.shapley.sampled`."""
        return sampled(self.predict, x, self._middle)

    def importance(self) -> dict[str, float]:
        """What the estimator itself calls its importances or coefficients; nothing where it has none."""
        held = getattr(self._model, "feature_importances_", getattr(self._model, "coef_", None))
        if held is None:
            return {}
        return dict(zip(self.names, np.abs(np.atleast_2d(held)).sum(axis=0).tolist(), strict=True))

    def to_artifacts(self) -> dict[str, bytes]:
        """The estimator as skops writes it, a ZIP file of JSON and arrays, and the medians as JSON."""
        return {MODEL: bytes(_module("skops.io").dumps(self._model)), MIDDLE: json.dumps(self._middle.tolist()).encode()}


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = "skops" if name.startswith("skops") else "scikit-learn"
        raise MissingExtraError("A model of scikit-learn", package, "sklearn") from error
