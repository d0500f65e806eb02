"""Distillation: labels for a student from what its teachers say, so that any learner can learn from any predictor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.errors import TrainingError
from mainspring.models.calibration import sharpened
from mainspring.models.protocol import Floats

TASKS = ("regression", "binary", "multiclass")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a student learns from: the row that each example is of (``row``), its label and weight, all of shape ``(m,)``."""

    row: npt.NDArray[np.int64]
    y: Floats
    weight: Floats


def lesson(task: str, taught: Floats, y: Floats, weight: Floats | None = None, *, temperature: float = 1.0, truth: float = 0.0) -> Lesson:
    """The examples from teachers' answers and the truth of shape ``(n,)``, of which ``truth`` is the share.

    ``taught`` are values of shape ``(n,)``, probabilities of 1 of shape ``(n,)``, or of classes, ``(n, classes)``, by ``task``. Values are
    mixed. Of classes every row becomes one example per class, weighted by what its teachers (softened by ``temperature``) and the
    truth give that class: the loss of any learner that takes weights is then the cross-entropy to the mixed probabilities.
    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.

    Raises:
        TrainingError: the task is another, or the answers are not numbers.
    """
    if task not in TASKS:
        raise TrainingError(f"Distil: the task is {task}; what can be distilled is {', '.join(TASKS)}.")
    if not np.isfinite(taught).all():
        raise TrainingError(
            f"Distil: the teacher answers {int((~np.isfinite(taught)).sum())} times with no finite number. Look at its labels."
        )
    weights = np.ones(len(y)) if weight is None else weight
    if task == "regression":
        return Lesson(np.arange(len(y)), (1 - truth) * taught + truth * y, weights)
    shares = np.column_stack([1 - taught, taught]) if taught.ndim == 1 else taught
    target = (1 - truth) * sharpened(shares, 1 / temperature) + truth * (y[:, None] == np.arange(shares.shape[1]))
    rows, classes = np.nonzero(target * weights[:, None])
    return Lesson(rows, classes.astype(np.float64), target[rows, classes] * weights[rows])
