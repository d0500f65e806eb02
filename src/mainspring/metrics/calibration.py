"""Whether probabilities mean what they say: ``score`` holds them (float64), ``truth`` what came (bool, or 0 and 1); one row each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mainspring.metrics.classification import Steps, Truth, as_truth, steps
from mainspring.metrics.intervals import clopper_pearson

Floats = NDArray[np.float64]

_EDGE = 1e-12


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of neighbouring scores: their number, mean score, share of true ones and its exact interval."""

    rows: int
    score: float
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """``P(true) = sigmoid(intercept + slope * logit(score))`` with standard errors; 0 and 1 are calibrated.

    A slope below 1 is overconfident; an intercept above 0 (at slope 1) is too low a score on the whole.
    """

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float


def reliability(score: Floats, truth: Truth, *, bins: int = 10, level: float = 0.95) -> tuple[Bin, ...]:
    """At most ``bins`` bins of about as many rows each, by rising score; rows of one score are never parted.

    Raises:
        ValueError: the shapes differ, there are no rows, a score is not between 0 and 1, or a truth is neither 0 nor 1 (here and
            in every function of this module).
    """
    rows, scores, hits = _binned(steps(score, _checked(score, truth)), bins)
    return tuple(Bin(int(n), s / n, h / n, *clopper_pearson(int(h), int(n), level)) for n, s, h in zip(rows, scores, hits, strict=True))


def calibration_error(score: Floats, truth: Truth, *, bins: int = 10) -> float:
    """Expected calibration error: mean over rows of ``|mean score - share true|`` of their bin, bins of equal mass.

    It is biased upwards: a calibrated model of ``n`` rows shows about ``0.8 * sqrt(bins * p * (1 - p) / n)``, not 0.
    Source: Naeini, Cooper, Hauskrecht, AAAI 2015; equal mass: Nixon et al., CVPR workshops 2019.
    """
    return binned_error(steps(score, _checked(score, truth)), bins=bins)


def binned_error(cut: Steps, *, bins: int = 10) -> float:
    """Expected calibration error; see `calibration_error`."""
    _, scores, hits = _binned(cut, bins)
    return float(np.abs(scores - hits).sum() / cut.rows)


def calibration_line(score: Floats, truth: Truth) -> Calibration:
    """Logistic regression of the truth on the logit of the score, by Newton's method. Source: Cox, Biometrika 45, 1958.

    NaN where it has no finite solution: one class only, one score only, or scores that part the classes without overlap.
    """
    known = _checked(score, truth)
    inner = np.clip(score, _EDGE, 1 - _EDGE)
    design = np.stack([np.ones(len(score)), np.log(inner / (1 - inner))], axis=1)
    nothing = Calibration(math.nan, math.nan, math.nan, math.nan)
    if known.all() or not known.any() or np.ptp(design[:, 1]) == 0 or _parted(score, known):
        return nothing
    beta = np.array([0.0, 1.0])
    for _ in range(100):
        beta, step = _newton(design, known, beta)
        if np.abs(step).max() < 1e-9:
            break
    errors = np.sqrt(np.diag(np.linalg.inv(_information(design, beta))))
    return Calibration(float(beta[0]), float(beta[1]), float(errors[0]), float(errors[1]))


def spiegelhalter(score: Floats, truth: Truth) -> tuple[float, float]:
    """Spiegelhalter's z of the Brier score and its two-sided p-value: z is standard normal where the scores are the true chances.

    NaN where every score is 0, 1/2 or 1. Source: Spiegelhalter, Statistics in Medicine 5, 1986.
    """
    known = _checked(score, truth)
    tilt = 1 - 2 * score
    spread = math.sqrt(float((np.square(tilt) * score * (1 - score)).sum()))
    if not spread:
        return math.nan, math.nan
    z = float(((known - score) * tilt).sum()) / spread
    return z, 2 * NormalDist().cdf(-abs(z))


def _binned(cut: Steps, bins: int) -> tuple[Floats, Floats, Floats]:
    """Rows, sum of scores and number of true rows of each bin that holds any, by rising score."""
    if bins < 1:
        raise ValueError(f"{bins} bins are none: give 1 or more")
    counts, hits = (np.diff(values, prepend=0.0)[::-1] for values in (cut.alerts, cut.hits))
    middle = np.cumsum(counts) - counts / 2
    starts = np.unique(np.searchsorted(middle, np.arange(bins) * cut.rows / bins))
    starts = starts[starts < len(middle)]
    rows, scores, found = (np.add.reduceat(values, starts) for values in (counts, cut.threshold[::-1] * counts, hits))
    return rows, scores, found


def _parted(score: Floats, truth: NDArray[np.bool_]) -> bool:
    true, false = score[truth], score[~truth]
    return bool(true.min() >= false.max() or false.min() >= true.max())


def _newton(design: Floats, truth: NDArray[np.bool_], beta: Floats) -> tuple[Floats, Floats]:
    """A Newton step, halved until the likelihood does not fall."""
    step = np.asarray(np.linalg.solve(_information(design, beta), design.T @ (truth - _sigmoid(design @ beta))), dtype=np.float64)
    start = _likelihood(design, truth, beta)
    for _ in range(60):
        if _likelihood(design, truth, beta + step) >= start - 1e-12 * abs(start):
            break
        step = step / 2
    return beta + step, step


def _information(design: Floats, beta: Floats) -> Floats:
    chance = _sigmoid(design @ beta)
    information: Floats = design.T @ (design * (chance * (1 - chance))[:, None])
    return information


def _likelihood(design: Floats, truth: NDArray[np.bool_], beta: Floats) -> float:
    line = design @ beta
    return float((truth * line - np.logaddexp(0, line)).sum())


def _sigmoid(line: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -line))


def _checked(score: Floats, truth: Truth) -> NDArray[np.bool_]:
    if score.shape != truth.shape or score.ndim != 1 or not score.size:
        raise ValueError(f"shapes {score.shape} and {truth.shape} are not those of two arrays of one length above 0")
    if not ((score >= 0) & (score <= 1)).all():
        raise ValueError("a score is not between 0 and 1: calibrate the scores first")
    return as_truth(truth)
