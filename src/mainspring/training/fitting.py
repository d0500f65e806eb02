"""From feature columns and labels to a model that answers: encoding, learning, calibration, intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import TrainingError
from mainspring.models.calibration import KINDS
from mainspring.models.conformal import ConformalInterval, QuantileInterval
from mainspring.models.encoding import Encoder
from mainspring.models.learners import learner
from mainspring.models.protocol import Floats, Predictor, Rows
from mainspring.models.sets import PredictionSets, two_columns
from mainspring.models.tabular import TabularModel, offset_of
from mainspring.spec import Model

Fit = Callable[[str, dict[str, Any]], Predictor]


@dataclass(frozen=True, slots=True)
class Examples:
    """What a model learns from: columns of shape ``(n,)`` by name, and labels, weights and query numbers as in `Rows`."""

    columns: Mapping[str, Array]
    label: Floats
    weight: Floats | None = None
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.label)


def fit_model(spec: Model, names: list[str], examples: Examples, held_out: Examples, *, threads: int = 2) -> TabularModel:
    """The model that ``spec`` declares over the columns ``names``; early stopping, calibration and interval look at ``held_out``.

    Raises:
        TrainingError: the labels do not fit the task, or the learner cannot learn from them.
        MissingExtraError: the learner's library is not installed.
    """
    _check(spec, examples)
    encoder = Encoder.fit(examples.columns, names)
    offsets = [_offsets(spec, one) for one in (examples, held_out)]
    rows, watched = (
        Rows(encoder.transform(one.columns), one.label - offset, one.weight, one.groups)
        for one, offset in zip((examples, held_out), offsets, strict=True)
    )
    if spec.task == "binary":
        rows = _balanced(_thinned(rows, spec.negatives, spec.seed)) if spec.balanced else _thinned(rows, spec.negatives, spec.seed)
    fit: Fit = partial(_fit, rows, watched, names, encoder.categorical, spec.seed, threads)
    kind, settings = spec.learner
    model = TabularModel(encoder, kind, settings, fit(kind, settings), spec.offset, float(np.mean(offsets[0])), kept=spec.negatives)
    if spec.calibration is not None or spec.sets is not None:
        return _classes_finished(spec, model, held_out)
    if spec.interval is None:
        return model
    if spec.interval_by == "residuals":
        return replace(model, interval=ConformalInterval.fit(model.predict(held_out.columns), held_out.label, spec.interval))
    low, high = (fit(*spec.learner_of_quantile(level)) for level in spec.interval)
    return replace(model, interval=QuantileInterval.fit(low, high, watched.x, watched.y, spec.interval))


def _fit(
    rows: Rows, watched: Rows, names: list[str], categorical: Sequence[str], seed: int, threads: int, kind: str, settings: dict[str, Any]
) -> Predictor:
    return learner(kind, settings).fit(rows, names=names, categorical=categorical, held_out=watched, seed=seed, threads=threads)


def _check(spec: Model, examples: Examples) -> None:
    if spec.task in ("binary", "multiclass"):
        different = np.unique(examples.label)
        known = np.arange(2) if spec.task == "binary" else np.arange(int(different.max(initial=0)) + 1)
        if len(different) < 2 or not np.isin(different, known).all():
            raise TrainingError(
                f"{type(spec).__name__}: the labels are {different[:5].tolist()}, {spec.task} needs classes numbered from 0, two at least."
            )
    if spec.task == "ranking" and examples.groups is None:
        raise TrainingError(f"{type(spec).__name__}: ranking needs the query that each row belongs to. Give groups.")


def _offsets(spec: Model, examples: Examples) -> Floats:
    return np.zeros(len(examples)) if spec.offset is None else offset_of(examples.columns[spec.offset])


def _thinned(rows: Rows, share: float, seed: int) -> Rows:
    """The rows with about ``share`` of the negatives."""
    if share == 1:
        return rows
    kept = (rows.y > 0) | (np.random.default_rng(seed).random(len(rows)) < share)
    return Rows(rows.x[kept], rows.y[kept], None if rows.weight is None else rows.weight[kept])


def _balanced(rows: Rows) -> Rows:
    """The rows with weights under which both classes weigh the same, and a row 1 on average."""
    weight = np.ones(len(rows)) if rows.weight is None else rows.weight
    positive = rows.y > 0
    whole, share = weight.sum(), weight[positive].sum() / weight.sum()
    scaled = weight * np.where(positive, 0.5 / share, 0.5 / (1 - share))
    return Rows(rows.x, rows.y, scaled * whole / scaled.sum(), rows.groups)


def _classes_finished(spec: Model, model: TabularModel, held_out: Examples) -> TabularModel:
    """With calibration and sets; where both are wanted, each has every other held-out row, so that the sets judge new rows."""
    predicted, label, weight = model.predict(held_out.columns), held_out.label, held_out.weight
    step = 1 if spec.calibration is None or spec.sets is None else 2
    if spec.calibration is not None:
        calibration = KINDS[spec.calibration].fit(predicted[::step], label[::step], None if weight is None else weight[::step])
        model = replace(model, calibration=calibration)
        predicted = calibration.apply(predicted)
    if spec.sets is None:
        return model
    probability, rng = two_columns(predicted[step - 1 :: step]), np.random.default_rng(spec.seed)
    sets = PredictionSets.fit(probability, label[step - 1 :: step], spec.sets, by=spec.sets_by, per_class=spec.sets_per_class, rng=rng)
    return replace(model, sets=sets)
