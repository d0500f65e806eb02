"""One evaluation of a version: every measure that fits, with intervals, by slice and against every rival, on held-out rows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.clock import DAY
from mainspring.columns import Array
from mainspring.errors import TrainingError
from mainspring.evaluation.calibrating import calibrate, line_of
from mainspring.evaluation.curves import BestThreshold, best_threshold, cost_curve, threshold_curve
from mainspring.evaluation.measuring import Answers, Sampling, arrays_of, compared_losses, measure, measure_quality
from mainspring.evaluation.record import MET, MISSED, UNMEASURED, Against, Evaluation, Promise, Slice, Threshold, Worse
from mainspring.evaluation.slices import find_slices, slices_of
from mainspring.measures import OF_TASK
from mainspring.metrics import METRICS, Metric, holm
from mainspring.spec import Costs, Quality

Floats = npt.NDArray[np.float64]
Options = Mapping[str, Any]

LOSSES = {"regression": "mae", "binary": "brier", "multiclass": "multiclass_log_loss"}
"""By task, the measure that versions are compared by, row by row."""
CHAMPION = "champion"
POINTS = 60
BEST_DRAWS = SLICE_DRAWS = 200
MIN_SLICE_ROWS = 30


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out rows: ``truth`` of shape ``(n,)`` (class numbers where classes are told apart) and ``as_of``, None where rows have no time.

    ``columns`` (each of shape ``(n,)``) are searched for slices; those named in ``by`` are the declared ones.
    """

    truth: Floats
    as_of: npt.NDArray[np.int64] | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)
    by: Sequence[str] = ()

    @property
    def sampling(self) -> Sampling:
        """Intervals by whole days of UTC, where rows have a time."""
        return Sampling.of(len(self.truth), None if self.as_of is None else self.as_of // DAY)


def evaluate(
    task: str, held: Held, answers: Answers, rivals: Mapping[str, Floats] | None = None, *, qualities: Sequence[Quality] = (),
    quantile: float | None = None, costs: Costs | None = None, split: Mapping[str, Any] | None = None,
    latency: Mapping[str, float] | None = None,
) -> Evaluation:  # fmt: skip
    """Evaluate answers to held-out rows, against what ``rivals`` (baselines by name, and ``champion``) answered to the same rows.

    The loss of a comparison is that of `LOSSES`, or the pinball loss of the ``quantile`` that the model predicts. ``qualities`` say which
    options are measured besides; without any a score of 0.5 is an alert. It takes seconds at most: the more rows, the fewer resamples.

    Raises:
        TrainingError: there are no rows, the task has no comparison loss (ranking), or answers, truth and rivals do not fit together.
    """
    _check(task, held, answers, rivals or {})
    started = time.perf_counter()
    work = _Work(task, held, answers, dict(rivals or {}), tuple(qualities), quantile, held.sampling)
    chosen, unmeasured = work.chosen()
    thresholds, best = work.thresholds(costs)
    return Evaluation(
        task=task,
        rows=len(held.truth),
        since=None if held.as_of is None else int(held.as_of.min()),
        until=None if held.as_of is None else int(held.as_of.max()),
        split=dict(split or {}),
        drawn=work.sampling.drawn,
        level=work.sampling.level,
        loss=work.loss[0].name,
        loss_options=work.loss[1],
        error=None if answers.score.ndim > 1 else float(np.abs(answers.score - held.truth).mean()),
        measures=measure(chosen, answers, held.truth, work.sampling),
        promises=tuple(work.promise(one) for one in work.qualities),
        against=work.against(),
        slices=work.slices(chosen),
        worse=work.worse(),
        calibration=calibrate(task, answers, held.truth, work.sampling),
        line=line_of(task, answers, held.truth),
        thresholds=thresholds,
        best=best,
        latency=dict(latency or {}),
        unmeasured=unmeasured,
        seconds=round(time.perf_counter() - started, 3),
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """What the parts of one evaluation share."""

    task: str
    held: Held
    answers: Answers
    rivals: Mapping[str, Floats]
    qualities: tuple[Quality, ...]
    quantile: float | None
    sampling: Sampling

    @property
    def loss(self) -> tuple[Metric, Options]:
        """The measure that answers are compared by, with its options."""
        if self.quantile is not None:
            return METRICS["pinball"], {"quantile": self.quantile}
        return METRICS[LOSSES[self.task]], {}

    def chosen(self) -> tuple[list[tuple[Metric, Options]], dict[str, str]]:
        """The measures to take with their options, the comparison loss first, and why others cannot be taken."""
        found, unmeasured = [self.loss], {}
        for metric in METRICS.values():
            if metric.kind not in OF_TASK[self.task]:
                continue
            if metric.kind == "interval" and self.answers.low is None:
                unmeasured[metric.name] = "the model gives no interval"
                continue
            options = list(self._options(metric))
            found += [(metric, one) for one in options if (metric, one) not in found]
        return found, unmeasured

    def _options(self, metric: Metric) -> Iterator[Options]:
        """The options under which a measure is taken: those declared of it or of one that shares them, else the plain ones."""
        shared = [dict(one.options) for one in self.qualities if set(dict(one.options)) & {"threshold", "alert_rate", "quantile"}]
        if metric.name in ("precision", "recall", "f1", "mcc"):
            yield from shared or [{"threshold": 0.5}]
        elif metric.name == "pinball":
            yield from shared
        else:
            yield {}
            yield from (dict(one.options) for one in self.qualities if one.metric == metric.name and one.options)

    def promise(self, quality: Quality) -> Promise:
        """A declared quality held against the rows."""
        found = measure_quality(quality, self.answers, self.rivals, self.held.truth, self.sampling)
        verdict = UNMEASURED if found.value is None else MET if quality.holds(found.value) else MISSED
        return Promise(str(quality), found, verdict, found.value is not None and quality.missed_by(*found.interval))

    def losses(self, answers: Answers) -> Floats:
        """The loss of each row."""
        metric, options = self.loss
        assert metric.by_row is not None
        return metric.by_row(*arrays_of(metric, answers, self.held.truth), **options)

    def against(self) -> tuple[Against, ...]:
        """Every rival's loss and the ratio to it; p-values adjusted together."""
        own, compared = self.losses(self.answers), []
        for name, score in self.rivals.items():
            theirs = self.losses(Answers(score))
            if theirs.sum() > 0:
                found = compared_losses(own, theirs, self.sampling)
                ratio, low, high = (value if math.isfinite(value) else None for value in (found.ratio, found.low, found.high))
                compared.append(Against(name, float(theirs.mean()), ratio, low, high, found.p))
            else:
                equal = None if own.sum() > 0 else 1.0
                compared.append(Against(name, 0.0, equal, equal, equal, 1.0))
        adjusted = holm([one.p for one in compared]) if compared else ()
        return tuple(replace(one, p=float(p)) for one, p in zip(compared, adjusted, strict=True))

    def slices(self, chosen: Sequence[tuple[Metric, Options]]) -> tuple[Slice, ...]:
        """The declared slices, the worst first. An alert rate is that of all rows, so a threshold here."""
        found, fewer = [], replace(self.sampling, draws=min(SLICE_DRAWS, self.sampling.draws))
        cheap = [(metric, self._everywhere(options)) for metric, options in chosen if metric.by_row or metric.by_steps]
        for name, rows in slices_of({name: self.held.columns[name] for name in self.held.by}).items():
            if rows.sum() < MIN_SLICE_ROWS:
                continue
            part, truth, sampling = self.answers.where(rows), self.held.truth[rows], fewer.where(rows)
            found.append(Slice(name, int(rows.sum()), measure(cheap, part, truth, sampling)))
        return tuple(sorted(found, key=lambda one: -(one.measures[0].value or 0.0)))

    def _everywhere(self, options: Options) -> Options:
        if "alert_rate" not in options:
            return options
        return {"threshold": float(np.quantile(self.answers.score, 1 - options["alert_rate"], method="higher"))}

    def worse(self) -> tuple[Worse, ...]:
        """The slices that are found to be worse than the other rows."""
        found = find_slices(self.held.columns, self.losses(self.answers), rng=self.sampling.rng, blocks=self.sampling.blocks)
        return tuple(Worse(str(one), *(getattr(one, name) for name in ("rows", "loss", "excess", "low", "high", "p"))) for one in found)

    def thresholds(self, costs: Costs | None) -> tuple[tuple[Threshold, ...], BestThreshold | None]:
        """The curve of thresholds, with costs where they are declared, and the cheapest one; nothing but for two classes."""
        if self.task != "binary":
            return (), None
        score, truth = self.answers.score, self.held.truth
        curve = threshold_curve(score, truth, points=POINTS)
        cost: list[float | None] = [None] * len(curve.threshold)
        if costs is not None:
            every = cost_curve(score, truth, costs)
            cost = every.cost[np.searchsorted(-every.threshold, -curve.threshold)].tolist()
        columns = [getattr(curve, name).tolist() for name in ("threshold", "alert_rate", "precision", "recall", "false_alarm_rate")]
        points = tuple(Threshold(*map(_told, row)) for row in zip(*columns, cost, strict=True))
        if costs is None:
            return points, None
        draws = min(BEST_DRAWS, self.sampling.draws)
        return points, best_threshold(score, truth, costs, rng=self.sampling.rng, blocks=self.sampling.blocks, draws=draws)


def _check(task: str, held: Held, answers: Answers, rivals: Mapping[str, Floats]) -> None:
    rows = len(held.truth)
    if task not in LOSSES or not rows:
        raise TrainingError(f"Evaluation: {rows} rows of the task {task} cannot be evaluated. Tasks: {', '.join(LOSSES)}.")
    for name, score in {"the version": answers.score, **rivals}.items():
        if score.shape != answers.score.shape or len(score) != rows:
            raise TrainingError(f"Evaluation: answers of {name} have shape {score.shape}, for {rows} rows. Give one answer a row.")
        if np.isnan(score).any():
            raise TrainingError(f"Evaluation: {int(np.isnan(score).sum())} answers of {name} are NaN. Mend what made them.")
        if task == "binary" and not ((score >= 0) & (score <= 1)).all():
            raise TrainingError(f"Evaluation: answers of {name} go from {score.min():g} to {score.max():g}: no probabilities. Calibrate.")


def _told(value: float | None) -> Any:
    return None if value is None or math.isnan(value) else value
