"""The seam between what learns and everything around it: arrays in, arrays out, and files that hold no code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """What is learned from: an encoded matrix and its labels.

    ``x`` has shape ``(n, d)``, float64, NaN for missing; ``y`` shape ``(n,)`` (class numbers from 0 where classes are told apart),
    or ``(n, tasks)`` where several things are predicted; ``weight`` shape ``(n,)``; ``groups`` numbers the query that a row belongs to,
    shape ``(n,)``, rows of one query together, where rows are ranked.
    """

    x: Floats
    y: Floats
    weight: Floats | None = None
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.x)


Watch = Callable[[int, Floats], None]
"""Is given the round of a fit, from 1, and what it would predict for the held-out rows after it; what it raises ends the fit."""


class Predictor(Protocol):
    """A fitted estimator. One must not be used by several threads at once."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of its matrix, in order."""
        ...

    @property
    def outputs(self) -> int:
        """How many numbers it gives a row: 1, or one per class or task."""
        ...

    def predict(self, x: Floats) -> Floats:
        """Values in the label's unit, probabilities or scores: of shape ``(n,)`` with one output, else ``(n, outputs)``."""
        ...

    def predict_row(self, x: Floats) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``, contiguous: shape ``(outputs,)``, to the bit."""
        ...

    def contributions(self, x: Floats) -> Floats:
        """What each column adds to the score before the link (such as the logistic), of shape ``(n, d + 1)``; the last is the base.

        With several outputs the shape is ``(n, outputs, d + 1)``. A model that can be asked alone explains what it predicts.
        """
        ...

    def importance(self) -> dict[str, float]:
        """How much the model makes of each column, in a measure of its own; empty where it has none."""
        ...

    def to_artifacts(self) -> dict[str, bytes]:
        """The estimator as files without code: no pickle."""
        ...


class Learner(Protocol):
    """Fits predictors; a declaration's settings are its own. The same call on the same machine gives the same bits."""

    def fit(
        self, rows: Rows, *, names: Sequence[str], categorical: Sequence[str], held_out: Rows | None, seed: int, threads: int
    ) -> Predictor:
        """Fit to rows; ``categorical`` names columns of category codes; ``held_out`` is what early stopping looks at."""
        ...

    def load(self, artifacts: Mapping[str, bytes], names: Sequence[str]) -> Predictor:
        """The predictor that `Predictor.to_artifacts` wrote.

        Raises:
            RegistryError: the files are no such predictor, or one for other columns.
        """
        ...
