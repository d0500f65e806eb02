"""From feature columns and labels to a model that answers: encoding, learning, calibration, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import TrainingError, did_you_mean
from mainspring.models.calibration import KINDS
from mainspring.models.conformal import ConformalInterval
from mainspring.models.encoding import Encoder
from mainspring.models.learners import learner
from mainspring.models.protocol import Floats, Predictor, Rows
from mainspring.models.tabular import TabularModel, offset_of
from mainspring.spec import Model
from mainspring.training.texts import fit_apart, fit_jointly


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
    _check(spec, names, examples)
    if spec.task == "binary":
        examples = _thinned(examples, spec.negatives, spec.seed)
    offsets = [_offsets(spec, one) for one in (examples, held_out)]
    taught, watched = (replace(one, label=one.label - offset) for one, offset in zip((examples, held_out), offsets, strict=True))
    if spec.balanced:
        taught = _balanced(taught)
    encoder, predictor = _fitted(spec, names, taught, watched, threads)
    kind, settings = spec.learner
    model = TabularModel(encoder, kind, settings, predictor, spec.offset, float(np.mean(offsets[0])), kept=spec.negatives)
    return _finished(spec, model, held_out)


def _fitted(spec: Model, names: list[str], taught: Examples, watched: Examples, threads: int) -> tuple[Encoder, Predictor]:
    kind, settings = spec.learner
    if spec.text and kind == "linear":
        return fit_jointly(spec, names, taught.columns, _rows(taught))
    texts, scores = fit_apart(spec, taught.columns, _rows(taught)) if spec.text else ({}, {})
    encoder = Encoder.fit(taught.columns, names, texts)
    predictor = learner(kind, settings).fit(
        _rows(taught, encoder.transform(taught.columns, scores)),
        names=encoder.columns,
        categorical=encoder.categorical,
        held_out=_rows(watched, encoder.transform(watched.columns)),
        seed=spec.seed,
        threads=threads,
    )
    return encoder, predictor


def _rows(examples: Examples, x: Floats | None = None) -> Rows:
    """Labels, weights and query numbers with the matrix ``x``, or with one of no columns."""
    return Rows(np.zeros((len(examples), 0)) if x is None else x, examples.label, examples.weight, examples.groups)


def _check(spec: Model, names: list[str], examples: Examples) -> None:
    for text in spec.text:
        if text.column not in names:
            raise TrainingError(f"{type(spec).__name__}: there is no text column '{text.column}'.{did_you_mean(text.column, names)}")
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


def _thinned(examples: Examples, share: float, seed: int) -> Examples:
    """The rows with about ``share`` of the negatives."""
    if share == 1:
        return examples
    kept = (examples.label > 0) | (np.random.default_rng(seed).random(len(examples)) < share)
    columns = {name: column[kept] for name, column in examples.columns.items()}
    return Examples(columns, examples.label[kept], None if examples.weight is None else examples.weight[kept])


def _balanced(examples: Examples) -> Examples:
    """The rows with weights under which all classes weigh the same, and a row 1 on average."""
    weight = np.ones(len(examples)) if examples.weight is None else examples.weight
    classes = examples.label.astype(np.int64)
    shares = np.bincount(classes, weight) / weight.sum()
    scaled = weight / (shares[classes] * np.count_nonzero(shares))
    return replace(examples, weight=scaled * weight.sum() / scaled.sum())


def _finished(spec: Model, model: TabularModel, held_out: Examples) -> TabularModel:
    if spec.calibration is None and spec.interval is None:
        return model
    predicted = model.predict(held_out.columns)
    calibration = None if spec.calibration is None else KINDS[spec.calibration].fit(predicted, held_out.label, held_out.weight)
    interval = None if spec.interval is None else ConformalInterval.fit(predicted, held_out.label, spec.interval)
    known = (model.encoder, model.kind, model.settings, model.predictor, model.offset, model.offset_mean)
    return TabularModel(*known, interval, model.kept, calibration)
