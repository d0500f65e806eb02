"""From feature columns and labels to a model that answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.errors import TrainingError, did_you_mean
from mainspring.models.calibration import resampled
from mainspring.models.encoding import Encoder
from mainspring.models.learners import IN_ROUNDS, learner
from mainspring.models.protocol import Floats, Predictor, Rows, Watch
from mainspring.models.tabular import TabularModel
from mainspring.spec import Model
from mainspring.training.examples import Examples, corrected, encoded, offsets_of, taught
from mainspring.training.finishing import finished
from mainspring.training.texts import fit_apart, fit_jointly


def fit_model(
    spec: Model, names: list[str], examples: Examples, held_out: Examples,
    *, threads: int = 2, start: TabularModel | None = None, watch: Watch | None = None,
) -> TabularModel:  # fmt: skip
    """The model that ``spec`` declares over the columns ``names``; early stopping, calibration, sets and interval look at ``held_out``.

    With ``start`` the learner goes on from its predictor, with its encoding of the columns. ``watch`` is given what a learner that
    learns in rounds says of ``held_out`` after each.

    Raises:
        TrainingError: the labels do not fit the task, the learner cannot learn from them, or it cannot go on from ``start``.
        MissingExtraError: the learner's library is not installed.
    """
    _check(spec, names, examples)
    kind, settings = spec.learner if start is None else _further(spec, names, start)
    lesson = taught(spec, examples)
    mean = float(np.mean(offsets_of(spec, examples)))

    def model(encoder: Encoder, predictor: Predictor) -> TabularModel:
        return TabularModel(encoder, kind, settings, predictor, spec.offset, mean, kept=spec.negatives)

    if spec.text and kind == "linear":
        return finished(spec, model(*fit_jointly(spec, names, lesson)), held_out)
    encoder, scores = _encoding(spec, names, lesson) if start is None else (start.encoder, None)
    rows = lesson.rows(encoder.transform(lesson.columns, scores))
    fit = _Fit(encoder, rows, encoded(encoder, corrected(spec, held_out)), spec.seed, threads)
    further: dict[str, Any] = {} if start is None else {"start": start.predictor}
    if watch is not None and kind in IN_ROUNDS:
        further["watch"] = _watching(spec, held_out, watch)
    predictor = fit(kind, settings, **further)
    return finished(spec, model(encoder, predictor), held_out, lambda level: fit(*spec.learner_of_quantile(level)))


def _watching(spec: Model, held_out: Examples, watch: Watch) -> Watch:
    """``watch``, given answers instead of what a learner says."""
    offsets = offsets_of(spec, held_out)
    return lambda number, predicted: watch(number, (predicted if spec.negatives == 1 else resampled(predicted, spec.negatives)) + offsets)


def _encoding(spec: Model, names: list[str], lesson: Examples) -> tuple[Encoder, dict[str, Floats] | None]:
    """The encoder, and where there is free text the scores that may be learned from."""
    if not spec.text:
        return Encoder.fit(lesson.columns, names), None
    texts, scores = fit_apart(spec, lesson)
    return Encoder.fit(lesson.columns, names, texts), scores


@dataclass(frozen=True, slots=True)
class _Fit:
    """Encoded rows that learners are fitted to, and those that they look at meanwhile."""

    encoder: Encoder
    rows: Rows
    watched: Rows
    seed: int
    threads: int

    def __call__(self, kind: str, settings: dict[str, Any], **further: Any) -> Predictor:
        return learner(kind, settings).fit(
            self.rows,
            names=self.encoder.columns,
            categorical=self.encoder.categorical,
            held_out=self.watched,
            seed=self.seed,
            threads=self.threads,
            **further,
        )


def _further(spec: Model, names: list[str], start: TabularModel) -> tuple[str, dict[str, Any]]:
    """The learner that goes on from ``start``."""
    texts = [one.column for one in spec.text]
    same = start.encoder.names == tuple(names) and list(start.encoder.texts) == texts and start.offset == spec.offset
    if spec.further is None or spec.further[0] != start.kind or not same:
        raise TrainingError(
            f"{type(spec).__name__}: it cannot go on from a model of kind '{start.kind}' over {len(start.encoder.names)} columns "
            "that was declared otherwise. Fit it anew."
        )
    return spec.further


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
