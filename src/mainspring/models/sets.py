"""Sets of classes that hold the true one with a declared probability: split conformal prediction for two classes and many.

The coverage is exact for exchangeable rows whatever the model: at least the declared one, and at most ``1 / (n + 1)`` more over ``n``
held-out rows without ties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.models.protocol import Floats

Bools = npt.NDArray[np.bool_]
PENALTY, FREE = 0.1, 2
"""What RAPS adds for each class beyond the second most likely; the coverage holds whatever they are."""


@dataclass(frozen=True, slots=True)
class PredictionSets:
    """What a class may score at most to be in the set, per class of ``k``.

    ``lac`` scores a class by how unlikely it is and makes the smallest sets (Sadinle, Lei, Wasserman, "Least ambiguous set-valued
    classifiers", 2019); ``aps`` by the probability of all likelier ones, which covers easy and hard rows more alike (Romano, Sesia,
    Candes, "Classification with valid and adaptive coverage", 2020); ``raps`` penalises long tails of classes besides (Angelopoulos,
    Bates, Malik, Jordan, "Uncertainty sets for image classifiers", 2021).
    """

    by: str
    thresholds: tuple[float, ...]

    @classmethod
    def fit(
        cls, probability: Floats, truth: Floats, coverage: float, *, by: str, per_class: bool, rng: np.random.Generator
    ) -> PredictionSets:
        """From probabilities of shape ``(n, k)`` and class numbers of shape ``(n,)`` on rows that the model was not fitted on.

        With ``per_class`` every class is covered with the probability by itself (Vovk's Mondrian predictors, 2003); one with too few
        rows to tell is in every set.
        """
        true = truth.astype(np.int64)
        scores = _scores(probability, by, rng.random(len(probability)))[np.arange(len(true)), true]
        classes = range(probability.shape[1])
        if not per_class:
            return cls(by, (_threshold(scores, coverage),) * len(classes))
        return cls(by, tuple(_threshold(scores[true == one], coverage) for one in classes))

    def apply(self, probability: Floats, rng: np.random.Generator | None = None) -> Bools:
        """Which classes are in the set of each row, shape ``(n, k)``.

        Where a class lies on the edge of the set, ``rng`` decides, and the coverage is exact; sets may be empty. Without it such a
        class is in, and so is always the most likely one: nothing depends on chance, and sets are only larger.
        """
        drawn = np.zeros(len(probability)) if rng is None else rng.random(len(probability))
        inside: Bools = _scores(probability, self.by, drawn) <= np.array(self.thresholds)
        if rng is None:
            inside[np.arange(len(inside)), probability.argmax(axis=1)] = True
        return inside

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; None for no threshold."""
        return {"by": self.by, "thresholds": [None if one == np.inf else one for one in self.thresholds]}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> PredictionSets:
        """The sets that `to_dict` wrote."""
        return cls(body["by"], tuple(np.inf if one is None else one for one in body["thresholds"]))


def two_columns(probability: Floats) -> Floats:
    """The probabilities of both classes, ``(n, 2)``, from those of the second, ``(n,)``; several are left as they are."""
    return probability if probability.ndim == 2 else np.column_stack([1 - probability, probability])


def _scores(probability: Floats, by: str, drawn: Floats) -> Floats:
    """How badly each class fits each row, ``(n, k)``; ``drawn`` of shape ``(n,)`` is the share of its own probability that counts."""
    if by == "lac":
        return 1 - probability
    order = np.argsort(-probability, axis=1, kind="stable")
    ordered = np.take_along_axis(probability, order, axis=1)
    scores = np.cumsum(ordered, axis=1) - ordered * (1 - drawn[:, None])
    if by == "raps":
        scores += PENALTY * np.maximum(np.arange(1, probability.shape[1] + 1) - FREE, 0)
    placed = np.empty_like(scores)
    np.put_along_axis(placed, order, scores, axis=1)
    return placed


def _threshold(scores: Floats, coverage: float) -> float:
    """The order statistic at rank ``ceil(coverage * (n + 1))``; infinite where there are too few."""
    rank = int(np.ceil(coverage * (len(scores) + 1) - 1e-9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else np.inf
