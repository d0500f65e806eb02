"""From feature columns and labels to a model that answers: encoding, learning, calibration, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import TrainingError
from mainspring.models.calibration import KINDS
from mainspring.models.conformal import ConformalInterval
from mainspring.models.encoding import Encoder
from mainspring.models.learners import learner
from mainspring.models.protocol import Floats, Rows
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
    spec: Model, names: list[str], examples: Examples, held_out: Examples, *, threads: int = 2, start: TabularModel | None = None
) -> TabularModel:
    """The model that ``spec`` declares over the columns ``names``; early stopping, calibration and interval look at ``held_out``.

    With ``start`` the learner goes on from its predictor, with its encoding of the columns.

    Raises:
        TrainingError: the labels do not fit the task, the learner cannot learn from them, or it cannot go on from ``start``.
        MissingExtraError: the learner's library is not installed.
    """
    _check(spec, examples)
    encoder = Encoder.fit(examples.columns, names) if start is None else start.encoder
    kind, settings = spec.learner if start is None else _further(spec, names, start)
    going_on = {} if start is None else {"start": start.predictor}
    predictor = learner(kind, settings).fit(
        learned_from(spec, encoder, examples),
        names=names,
        categorical=encoder.categorical,
        held_out=encoded(spec, encoder, held_out),
        seed=spec.seed,
        threads=threads,
        **going_on,
    )
    mean = float(np.mean(offsets_of(spec, examples)))
    return finished(spec, TabularModel(encoder, kind, settings, predictor, spec.offset, mean, kept=spec.negatives), held_out)


def encoded(spec: Model, encoder: Encoder, examples: Examples) -> Rows:
    """The examples as a matrix, their labels less the offset."""
    return Rows(encoder.transform(examples.columns), examples.label - offsets_of(spec, examples), examples.weight, examples.groups)


def learned_from(spec: Model, encoder: Encoder, examples: Examples) -> Rows:
    """The rows that the learner of ``spec`` is fitted to: `encoded`, thinned and balanced as it declares."""
    rows = encoded(spec, encoder, examples)
    if spec.task != "binary":
        return rows
    thinned = _thinned(rows, spec.negatives, spec.seed)
    return _balanced(thinned) if spec.balanced else thinned


def finished(spec: Model, model: TabularModel, held_out: Examples) -> TabularModel:
    """The model with the calibration and the interval that ``spec`` declares, from rows that its predictor was not fitted to."""
    if spec.calibration is None and spec.interval is None:
        return model
    predicted = model.predict(held_out.columns)
    calibration = None if spec.calibration is None else KINDS[spec.calibration].fit(predicted, held_out.label, held_out.weight)
    interval = None if spec.interval is None else ConformalInterval.fit(predicted, held_out.label, spec.interval)
    return replace(model, interval=interval, calibration=calibration)


def _further(spec: Model, names: list[str], start: TabularModel) -> tuple[str, dict[str, Any]]:
    """The learner that goes on from ``start``."""
    if spec.further is None or spec.further[0] != start.kind or start.encoder.names != tuple(names) or start.offset != spec.offset:
        raise TrainingError(
            f"{type(spec).__name__}: it cannot go on from a model of kind '{start.kind}' over {len(start.encoder.names)} columns "
            "that was declared otherwise. Fit it anew."
        )
    return spec.further


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


def offsets_of(spec: Model, examples: Examples) -> Floats:
    """What the model corrects, of shape ``(n,)``; 0 where it declares no offset."""
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
