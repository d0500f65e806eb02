"""Whether answers mean what they say, in steps of neighbouring answers."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from mainspring.evaluation.measuring import Answers, Sampling
from mainspring.evaluation.record import Line, Step
from mainspring.metrics import calibration_line, ratio_interval, reliability

Floats = npt.NDArray[np.float64]

STEPS = 10
_DRAWS = 1_000


def calibrate(task: str, answers: Answers, truth: Floats, sampling: Sampling) -> tuple[Step, ...]:
    """At most ten steps of about as many rows each, by rising answer.

    Of two classes the share that came, with its exact interval; of several, the probability of the likeliest class against the share
    of rows where it was right; of numbers the mean of what came.
    """
    if task == "regression":
        return _of_numbers(answers.score, truth, sampling)
    score, came = answers.score, truth
    if task == "multiclass":
        score, came = score.max(axis=1), (score.argmax(axis=1) == truth).astype(np.float64)
    found = reliability(score, came, bins=STEPS, level=sampling.level)
    return tuple(Step(one.rows, float(one.score), float(one.share), one.low, one.high) for one in found)


def line_of(task: str, answers: Answers, truth: Floats) -> Line | None:
    """The calibration line of probabilities of two classes, where it has a finite solution."""
    if task != "binary":
        return None
    found = calibration_line(answers.score, truth)
    return None if math.isnan(found.slope) else Line(**asdict(found))


def _of_numbers(score: Floats, truth: Floats, sampling: Sampling) -> tuple[Step, ...]:
    edges = np.unique(np.quantile(score, np.linspace(0, 1, STEPS + 1)[1:-1], method="inverted_cdf"))
    place, units, steps = np.searchsorted(edges, score, side="left"), sampling.units(len(score)), []
    for number in np.unique(place):
        rows = place == number
        came, count = truth[rows], int(rows.sum())
        ends = ratio_interval(came, np.ones(count), units[rows], rng=sampling.rng, draws=_DRAWS, level=sampling.level)
        low, high = (end if math.isfinite(end) else None for end in ends)
        steps.append(Step(count, float(score[rows].mean()), float(came.mean()), low, high))
    return tuple(steps)
