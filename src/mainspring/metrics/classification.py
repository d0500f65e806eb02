"""Measures of two-class predictions. ``score`` (float64) rises with the chance that ``truth`` (bool, or 0 and 1) is true; one row each.

What has no denominator (precision without alerts, recall without positives) is NaN: it was not measured. Rows of equal score count as
what their mean over every order of them is, so that no measure depends on the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Truth = NDArray[Any]

_CLIP = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Steps:
    """What an alert at each distinct score would bring, from the highest down; arrays of one length.

    An alert is ``score >= threshold``: ``alerts`` rows, ``hits`` of them true (float64, whole numbers).
    """

    threshold: Floats
    alerts: Floats
    hits: Floats

    @property
    def rows(self) -> float:
        """Rows in all."""
        return float(self.alerts[-1])

    @property
    def positives(self) -> float:
        """True rows in all."""
        return float(self.hits[-1])


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of the four outcomes; fractions where rows of one score share what is left of an alert budget."""

    tp: float
    fp: float
    fn: float
    tn: float

    @property
    def alert_rate(self) -> float:
        """Share of rows with an alert."""
        return _share(self.tp + self.fp, self.tp + self.fp + self.fn + self.tn)

    @property
    def accuracy(self) -> float:
        """Share of rows that were right."""
        return _share(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def precision(self) -> float:
        """Share of alerts that were true."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of true rows with an alert."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def mcc(self) -> float:
        """Correlation of alert and truth. Source: Matthews, BBA Protein Structure 405, 1975."""
        margins = (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        return _share(self.tp * self.tn - self.fp * self.fn, math.sqrt(margins))


def steps(score: Floats, truth: Truth) -> Steps:
    """Alerts and hits at each distinct score.

    Raises:
        ValueError: the shapes differ, there are no rows, a score is NaN or a truth is neither 0 nor 1 (here and in every
            function of this module).
    """
    truth = _checked(score, truth)
    order = np.argsort(score)[::-1]
    ranked = score[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    return Steps(ranked[last], last + 1.0, np.cumsum(truth[order])[last].astype(np.float64))


def resampled_steps(score: Floats, truth: Truth, blocks: NDArray[Any] | None, *, rng: np.random.Generator, draws: int) -> Iterator[Steps]:
    """`steps` of ``draws`` samples, drawn row by row or, where ``blocks`` labels the rows, block by block: sorted once for all of them."""
    known = _checked(score, truth)
    order = np.argsort(score)[::-1]
    ranked, hit = score[order], known[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    units = order if blocks is None else np.unique(blocks, return_inverse=True)[1][order]
    count = int(units.max()) + 1
    for _ in range(draws):
        weight = np.bincount(rng.integers(count, size=count), minlength=count)[units]
        alerts, hits = np.cumsum(weight)[last], np.cumsum(weight * hit)[last]
        drawn = np.diff(alerts, prepend=0) > 0
        yield Steps(ranked[last[drawn]], alerts[drawn].astype(np.float64), hits[drawn].astype(np.float64))


def confusion(score: Floats, truth: Truth, *, threshold: float | None = None, alert_rate: float | None = None) -> Confusion:
    """The four counts when rows of ``score >= threshold`` are alerts, or when the highest ``alert_rate`` of all rows are.

    A budget of alerts need not be whole: rows of one score at its edge each get the same part of what is left.

    Raises:
        ValueError: not exactly one of the two was given, or the rate is not a share.
    """
    if (threshold is None) == (alert_rate is None):
        raise ValueError("give either a threshold or an alert rate")
    if alert_rate is not None:
        return _of_highest(steps(score, truth), alert_rate)
    assert threshold is not None
    known, alert = _checked(score, truth), score >= threshold
    alerts, hits, positives = float(alert.sum()), float(known[alert].sum()), float(known.sum())
    return Confusion(hits, alerts - hits, positives - hits, len(score) - alerts - positives + hits)


def precision(score: Floats, truth: Truth, *, threshold: float | None = None, alert_rate: float | None = None) -> float:
    """Share of alerts that were true; `confusion` says what an alert is."""
    return confusion(score, truth, threshold=threshold, alert_rate=alert_rate).precision


def recall(score: Floats, truth: Truth, *, threshold: float | None = None, alert_rate: float | None = None) -> float:
    """Share of true rows with an alert: ``recall(score, truth, alert_rate=0.005)`` is that of the highest 0.5 %."""
    return confusion(score, truth, threshold=threshold, alert_rate=alert_rate).recall


def f1(score: Floats, truth: Truth, *, threshold: float | None = None, alert_rate: float | None = None) -> float:
    """Harmonic mean of precision and recall."""
    return confusion(score, truth, threshold=threshold, alert_rate=alert_rate).f1


def mcc(score: Floats, truth: Truth, *, threshold: float | None = None, alert_rate: float | None = None) -> float:
    """Matthews correlation of alert and truth, -1 to 1."""
    return confusion(score, truth, threshold=threshold, alert_rate=alert_rate).mcc


def right(score: Floats, truth: Truth, *, threshold: float = 0.5) -> Floats:
    """1 for each row where ``score >= threshold`` is the truth, else 0."""
    hit: NDArray[np.bool_] = (score >= threshold) == _checked(score, truth)
    return hit.astype(np.float64)


def accuracy(score: Floats, truth: Truth, *, threshold: float = 0.5) -> float:
    """Share of rows that are `right`."""
    return float(right(score, truth, threshold=threshold).mean())


def roc_auc(score: Floats, truth: Truth) -> float:
    """Chance that a true row scores above a false one, ties counting half; NaN where all rows are of one class."""
    return area(steps(score, truth))


def average_precision(score: Floats, truth: Truth) -> float:
    """Mean over true rows of the precision at their score, the area under the stepwise precision-recall curve; NaN without any."""
    return mean_precision(steps(score, truth))


def area(cut: Steps) -> float:
    """ROC AUC; see `roc_auc`."""
    false = np.append(0.0, cut.alerts - cut.hits)
    true = np.append(0.0, cut.hits)
    whole = float((np.diff(false) * (true[1:] + true[:-1])).sum()) / 2
    return _share(whole, cut.positives * (cut.rows - cut.positives))


def mean_precision(cut: Steps) -> float:
    """Average precision; see `average_precision`."""
    return _share(float((np.diff(cut.hits, prepend=0.0) * cut.hits / cut.alerts).sum()), cut.positives)


def at_cut(name: str) -> Callable[..., float]:
    """The measure of `Confusion` with this name, of `Steps` and a ``threshold`` or an ``alert_rate``; see `confusion`."""

    def measure(cut: Steps, *, threshold: float | None = None, alert_rate: float | None = None) -> float:
        if (threshold is None) == (alert_rate is None):
            raise ValueError("give either a threshold or an alert rate")
        counts = _from(cut, threshold) if threshold is not None else _of_highest(cut, alert_rate or 0.0)
        return float(getattr(counts, name))

    return measure


def log_losses(score: Floats, truth: Truth) -> Floats:
    """``-ln`` of the probability that each row gives to what came true, in nats; clipped 2.2e-16 from 0 and 1.

    Raises:
        ValueError: a score is not a probability (here, in `squared_errors` and in their means).
    """
    given: Floats = np.where(_probable(score, truth), score, 1 - score)
    return -np.log(np.clip(given, _CLIP, 1 - _CLIP))


def log_loss(score: Floats, truth: Truth) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(score, truth).mean())


def squared_errors(score: Floats, truth: Truth) -> Floats:
    """The squared error of each row's probability."""
    errors: Floats = score - _probable(score, truth)
    return np.square(errors)


def brier(score: Floats, truth: Truth) -> float:
    """Mean squared error of the probability. Source: Brier, Monthly Weather Review 78, 1950."""
    return float(squared_errors(score, truth).mean())


def as_truth(truth: Truth) -> NDArray[np.bool_]:
    """Truth as bool.

    Raises:
        ValueError: a value is neither 0 nor 1.
    """
    known = truth.astype(np.bool_)
    if truth.dtype != np.bool_ and not (known == truth).all():
        raise ValueError(f"truth holds {truth[known != truth][0]!r}: give only 0 and 1, or false and true")
    return known


def _of_highest(cut: Steps, alert_rate: float) -> Confusion:
    """The counts when the highest ``alert_rate`` of all rows are alerts."""
    if not 0 <= alert_rate <= 1:
        raise ValueError(f"alert rate {alert_rate} is not a share between 0 and 1")
    alerts = alert_rate * cut.rows
    whole = int(np.searchsorted(cut.alerts, alerts, side="right"))
    before, hits = (float(cut.alerts[whole - 1]), float(cut.hits[whole - 1])) if whole else (0.0, 0.0)
    if whole < len(cut.alerts):
        hits += (alerts - before) * (float(cut.hits[whole]) - hits) / (float(cut.alerts[whole]) - before)
    return _counts(cut, alerts, hits)


def _from(cut: Steps, threshold: float) -> Confusion:
    """The counts when rows of ``score >= threshold`` are alerts."""
    last = int(np.searchsorted(-cut.threshold, -threshold, side="right"))
    return _counts(cut, float(cut.alerts[last - 1]), float(cut.hits[last - 1])) if last else _counts(cut, 0.0, 0.0)


def _counts(cut: Steps, alerts: float, hits: float) -> Confusion:
    return Confusion(hits, alerts - hits, cut.positives - hits, cut.rows - alerts - cut.positives + hits)


def _checked(score: Floats, truth: Truth) -> NDArray[np.bool_]:
    if score.shape != truth.shape or score.ndim != 1:
        raise ValueError(f"shapes {score.shape} and {truth.shape} are not those of two arrays of one length")
    if not score.size:
        raise ValueError("no rows to measure")
    if np.isnan(score).any():
        raise ValueError("a score is NaN: drop its row, or give it a score")
    return as_truth(truth)


def _probable(score: Floats, truth: Truth) -> NDArray[np.bool_]:
    known = _checked(score, truth)
    if score.min() < 0 or score.max() > 1:
        raise ValueError(f"scores from {score.min():g} to {score.max():g} are no probabilities: calibrate them first")
    return known


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
