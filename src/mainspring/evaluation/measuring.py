"""One measure on rows of answers with its interval: by whole blocks (days) where rows have such, exact where a formula is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import TrainingError
from mainspring.measures import labelled
from mainspring.metrics import METRICS, Metric, Ratio, auc_interval, clopper_pearson, paired_ratio, ratio_interval
from mainspring.metrics.classification import resampled_steps
from mainspring.metrics.resampling import resamples
from mainspring.spec import Quality

Floats = npt.NDArray[np.float64]
Chosen = tuple[Metric, Mapping[str, Any]]

BLOCK_DRAWS = 2_000
MOST_DRAWS, LEAST_DRAWS, DRAWN_ROWS = 500, 100, 10_000_000
"""Resamples of a measure that needs all rows again: as many as let so many rows be drawn in all, within these bounds."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to rows, each of shape ``(n,)``: numbers in the label's unit or probabilities; of several classes ``(n, classes)``.

    ``low`` and ``high`` bound the answer where the model gives an interval.
    """

    score: Floats
    low: Floats | None = None
    high: Floats | None = None

    def where(self, chosen: npt.NDArray[np.bool_]) -> Answers:
        """Those to the chosen rows."""
        low, high = (None if one is None else one[chosen] for one in (self.low, self.high))
        return Answers(self.score[chosen], low, high)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How intervals are made. ``blocks`` of shape ``(n,)`` labels rows that share something, such as their day; None: they share nothing.
    ``draws`` is the number of resamples of a measure that needs all rows again; one that is a sum over rows has always 2,000 of blocks.

    Every interval of one sampling draws the same resamples, so that two answers to the same rows are compared on the same ones.
    """

    blocks: npt.NDArray[np.int64] | None
    draws: int
    seed: int = 0
    level: float = 0.95

    def where(self, chosen: npt.NDArray[np.bool_]) -> Sampling:
        """The same for the chosen rows."""
        return replace(self, blocks=None if self.blocks is None else self.blocks[chosen])

    @classmethod
    def of(cls, rows: int, blocks: npt.NDArray[np.int64] | None) -> Sampling:
        """With as many resamples as are worth their time."""
        return cls(blocks, max(LEAST_DRAWS, min(MOST_DRAWS, DRAWN_ROWS // max(rows, 1))))

    @property
    def rng(self) -> np.random.Generator:
        """A generator that starts anew."""
        return np.random.default_rng(self.seed)

    def units(self, rows: int) -> npt.NDArray[np.int64]:
        """What is drawn: the blocks, or every row for itself."""
        return np.arange(rows) if self.blocks is None else self.blocks

    @property
    def drawn(self) -> str:
        """What is drawn, in words."""
        return "rows drawn" if self.blocks is None else "days drawn"


@dataclass(frozen=True, slots=True)
class Measured:
    """A measure with its interval, or with ``of`` its ratio to that baseline's; ``how`` says where the interval comes from.

    None as ``value``: it could not be measured. None as an end: the rows do not tell (fewer than two blocks, say).
    """

    name: str
    options: Mapping[str, Any]
    value: float | None
    low: float | None
    high: float | None
    how: str
    of: str = ""

    @property
    def label(self) -> str:
        """As it is shown: ``recall at alert_rate 0.005``, ``mae / route_median``."""
        return f"{labelled(self.name, self.options)}{f' / {self.of}' if self.of else ''}"

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends, infinite where the rows do not tell."""
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high


def measure(chosen: Sequence[Chosen], answers: Answers, truth: Floats, sampling: Sampling) -> tuple[Measured, ...]:
    """Measures, each with its options, of answers to rows whose label is ``truth`` of shape ``(n,)``; in their order."""
    counted = [number for number, (metric, _) in enumerate(chosen) if metric.by_steps is not None]
    together = _drawn([chosen[number] for number in counted], answers, truth, sampling).T if counted else ()
    drawn = dict(zip(counted, together, strict=True))
    return tuple(_one(one, drawn.get(number), answers, truth, sampling) for number, one in enumerate(chosen))


def measure_quality(quality: Quality, answers: Answers, baselines: Mapping[str, Floats], truth: Floats, sampling: Sampling) -> Measured:
    """What a declared quality bounds: its measure, or the ratio to that of one of ``baselines`` (of shape ``(n,)``) on the same rows."""
    metric, options = METRICS[quality.metric], dict(quality.options)
    chosen = (metric, options)
    if quality.of is None:
        return measure([chosen], answers, truth, sampling)[0]
    both = answers, Answers(baselines[quality.of])
    pair = [arrays_of(metric, one, truth) for one in both]
    if metric.by_row is not None:
        own, theirs = (metric.by_row(*arrays, **options) for arrays in pair)
        if not theirs.sum() > 0:
            return Measured(metric.name, options, None, None, None, "the baseline's is 0", quality.of)
        found = compared_losses(own, theirs, sampling)
        return _measured(metric, options, (found.ratio, found.low, found.high), sampling.drawn, quality.of)
    one, other = (metric.function(*arrays, **options) for arrays in pair)
    top, bottom = (_drawn([chosen], one, truth, sampling)[:, 0] for one in both)
    ratios = np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom != 0)
    return _measured(metric, options, (one / other if other else math.nan, *_ends(ratios, sampling)), sampling.drawn, quality.of)


def compared_losses(own: Floats, theirs: Floats, sampling: Sampling) -> Ratio:
    """The ratio of the losses of two answers to the same rows, each of shape ``(n,)``; theirs must sum to more than 0."""
    draws = sampling.draws if sampling.blocks is None else BLOCK_DRAWS
    return paired_ratio(own, theirs, sampling.units(len(own)), rng=sampling.rng, draws=draws, level=sampling.level)


def arrays_of(metric: Metric, answers: Answers, truth: Floats) -> list[Array]:
    """The arrays that a measure needs.

    Raises:
        TrainingError: the answers lack one: an interval, or the queries that rows belong to.
    """
    known = dict.fromkeys(("predicted", "score", "probability"), answers.score) | {"low": answers.low, "high": answers.high, "truth": truth}
    found = [array for name in metric.needs if (array := known.get(name)) is not None]
    if len(found) < len(metric.needs):
        missing = " and ".join(name for name in metric.needs if known.get(name) is None)
        raise TrainingError(f"Measure '{metric.name}': the answers have no {missing}. Evaluate a model that gives them.")
    return found


def _one(chosen: Chosen, drawn: Floats | None, answers: Answers, truth: Floats, sampling: Sampling) -> Measured:
    """One measure, whose values on resamples may be known already."""
    metric, options = chosen
    arrays = arrays_of(metric, answers, truth)
    if metric.by_row is not None:
        value, ends, how = _of_rows(metric.by_row(*arrays, **options), sampling)
    elif metric.name == "roc_auc" and sampling.blocks is None and min(truth.sum(), (1 - truth).sum()) >= 2:
        value, ends, how = metric.function(*arrays), auc_interval(arrays[0], arrays[1], sampling.level), "DeLong"
    else:
        values = _drawn([chosen], answers, truth, sampling)[:, 0] if drawn is None else drawn
        value, ends, how = metric.function(*arrays, **options), _ends(values, sampling), sampling.drawn
    return _measured(metric, options, (value, *ends), how)


def _of_rows(values: Floats, sampling: Sampling) -> tuple[float, tuple[float, float], str]:
    """Mean, interval, and how it was made, of the values of each row."""
    mean = float(values.mean())
    if sampling.blocks is None and np.isin(values, (0.0, 1.0)).all():
        return mean, clopper_pearson(int(values.sum()), len(values), sampling.level), "exact"
    units, draws = sampling.units(len(values)), sampling.draws if sampling.blocks is None else BLOCK_DRAWS
    ends = ratio_interval(values, np.ones(len(values)), units, rng=sampling.rng, draws=draws, level=sampling.level)
    return mean, ends, sampling.drawn


def _drawn(chosen: Sequence[Chosen], answers: Answers, truth: Floats, sampling: Sampling) -> Floats:
    """Each measure on every resample, NaN where it has no value there; shape ``(draws, measures)``. All count steps, or none does."""
    if all(metric.by_steps is not None for metric, _ in chosen):
        cuts = resampled_steps(answers.score, truth, sampling.blocks, rng=sampling.rng, draws=sampling.draws)
        return np.array([[metric.by_steps(cut, **options) for metric, options in chosen if metric.by_steps is not None] for cut in cuts])
    arrays = [(metric, options, arrays_of(metric, answers, truth)) for metric, options in chosen]
    taken = resamples(sampling.blocks, len(truth), rng=sampling.rng, draws=sampling.draws)
    return np.array([[metric.function(*(one[rows] for one in needed), **options) for metric, options, needed in arrays] for rows in taken])


def _ends(values: Floats, sampling: Sampling) -> tuple[float, float]:
    """Percentile interval of resampled values; infinite where half of them are NaN or they cannot differ."""
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= len(values) or (sampling.blocks is not None and len(np.unique(sampling.blocks)) < 2):
        return -math.inf, math.inf
    low, high = np.quantile(defined, [(1 - sampling.level) / 2, (1 + sampling.level) / 2])
    return float(low), float(high)


def _measured(metric: Metric, options: Mapping[str, Any], values: tuple[float, float, float], how: str, of: str = "") -> Measured:
    value, low, high = (float(one) if math.isfinite(one) else None for one in values)
    return Measured(metric.name, dict(options), value, low, high, how, of)
