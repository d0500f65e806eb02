"""From feature columns and labels to a model that answers: encoding, learning, calibration, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import TrainingError
from mainspring.models.calibration import KINDS, resampled
from mainspring.models.conformal import ConformalInterval
from mainspring.models.encoding import Encoder
from mainspring.models.learners import IN_ROUNDS, learner
from mainspring.models.protocol import Floats, Rows, Watch
from mainspring.models.tabular import TabularModel, offset_of
from mainspring.spec import Model


@dataclass(frozen=True, slots=True)
class Examples:
    """What a model learns from: columns of shape ``(n,)`` by name, and labels, weights and query numbers as in `Rows`."""

    columns: Mapping[str, Array]
    label: Floats
    weight: Floats | None = None
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.label)


def fit_model(
    spec: Model, names: list[str], examples: Examples, held_out: Examples, *, threads: int = 2, watch: Watch | None = None
) -> TabularModel:
    """The model that ``spec`` declares over the columns ``names``; early stopping, calibration and interval look at ``held_out``.

    ``watch`` is given what a learner that learns in rounds says of ``held_out`` after each.

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
    kind, settings = spec.learner
    whole = (lambda predicted: predicted) if spec.negatives == 1 else (lambda predicted: resampled(predicted, spec.negatives))
    watching: dict[str, Any] = {}
    if watch is not None and kind in IN_ROUNDS:
        watching["watch"] = lambda number, predicted: watch(number, whole(predicted) + offsets[1])
    predictor = learner(kind, settings).fit(
        rows, names=names, categorical=encoder.categorical, held_out=watched, seed=spec.seed, threads=threads, **watching
    )
    model = TabularModel(encoder, kind, settings, predictor, spec.offset, float(np.mean(offsets[0])), kept=spec.negatives)
    return _finished(spec, model, held_out)


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


def _finished(spec: Model, model: TabularModel, held_out: Examples) -> TabularModel:
    if spec.calibration is None and spec.interval is None:
        return model
    predicted = model.predict(held_out.columns)
    calibration = None if spec.calibration is None else KINDS[spec.calibration].fit(predicted, held_out.label, held_out.weight)
    interval = None if spec.interval is None else ConformalInterval.fit(predicted, held_out.label, spec.interval)
    known = (model.encoder, model.kind, model.settings, model.predictor, model.offset, model.offset_mean)
    return TabularModel(*known, interval, model.kept, calibration)
