"""From feature columns and labels to a model that answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.errors import TrainingError
from mainspring.models.encoding import Encoder
from mainspring.models.learners import learner
from mainspring.models.protocol import Predictor, Rows
from mainspring.models.tabular import TabularModel
from mainspring.spec import Model
from mainspring.training.examples import Examples, corrected, encoded, offsets_of, taught
from mainspring.training.finishing import finished


def fit_model(
    spec: Model, names: list[str], examples: Examples, held_out: Examples, *, threads: int = 2, start: TabularModel | None = None
) -> TabularModel:
    """The model that ``spec`` declares over the columns ``names``; early stopping, calibration, sets and interval look at ``held_out``.

    With ``start`` the learner goes on from its predictor, with its encoding of the columns.

    Raises:
        TrainingError: the labels do not fit the task, the learner cannot learn from them, or it cannot go on from ``start``.
        MissingExtraError: the learner's library is not installed.
    """
    _check(spec, examples)
    kind, settings = spec.learner if start is None else _further(spec, names, start)
    lesson = taught(spec, examples)
    encoder = Encoder.fit(lesson.columns, names) if start is None else start.encoder
    fit = _Fit(encoder, encoded(encoder, lesson), encoded(encoder, corrected(spec, held_out)), spec.seed, threads)
    predictor = fit(kind, settings, **({} if start is None else {"start": start.predictor}))
    mean = float(np.mean(offsets_of(spec, examples)))
    model = TabularModel(encoder, kind, settings, predictor, spec.offset, mean, kept=spec.negatives)
    return finished(spec, model, held_out, lambda level: fit(*spec.learner_of_quantile(level)))


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
            names=self.encoder.names,
            categorical=self.encoder.categorical,
            held_out=self.watched,
            seed=self.seed,
            threads=self.threads,
            **further,
        )


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
