"""Pruning: what of a fitted model can go, in rounds, with what is left learning on between them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mainspring.errors import DeclarationError, TrainingError, did_you_mean
from mainspring.models.protocol import Predictor, Rows

Progress = Callable[[int, int], None]
_KINDS = {"net": ("nets.pruning", "pruned_net"), "lightgbm": ("lightgbm", "pruned_trees")}


@dataclass(frozen=True, slots=True)
class Prune:
    """Take ``share`` of a net away, in ``rounds``, with ``epochs`` of fitting after each.

    The smallest weights of all layers together become 0, which makes files smaller and nothing faster; ``structured`` takes whole
    neurons and channels, the same share of each layer: the net becomes a smaller one. Of boosted trees the last ones go, at
    once. Source: Zhu and Gupta, "To prune, or not to prune", 2017, for the rounds: the share rises fast, then slowly.
    """

    share: float = 0.5
    structured: bool = False
    rounds: int = 4
    epochs: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.rounds < 1 or self.epochs < 0:
            raise DeclarationError(
                f"Prune: share={self.share:g}, rounds={self.rounds}, epochs={self.epochs}. Give a share between 0 and 1, 1 round or more, "
                "and no epochs below 0."
            )

    @property
    def shares(self) -> list[float]:
        """The share that is gone after each round."""
        return [self.share * (1 - (1 - number / self.rounds) ** 3) for number in range(1, self.rounds + 1)]


class Pruner(Protocol):
    """Prunes predictors of one kind; the same call on one thread gives the same bits."""

    def __call__(
        self, predictor: Any, settings: Mapping[str, Any], step: Prune, rows: Rows, categorical: Sequence[str],
        *, seed: int, threads: int, progress: Progress,
    ) -> tuple[Predictor, dict[str, Any]]:  # fmt: skip
        """The smaller predictor and the settings of a learner of its shape."""
        ...


def prune(
    kind: str, predictor: Predictor, settings: Mapping[str, Any], step: Prune, rows: Rows, categorical: Sequence[str],
    *, seed: int = 0, threads: int = 1, progress: Progress = lambda _done, _total: None,
) -> tuple[Predictor, dict[str, Any]]:  # fmt: skip
    """The predictor less what ``step`` takes, fitted on to ``rows`` (as its learner saw them), and the settings of its shape.

    ``progress`` is told rounds done and their number.

    Raises:
        TrainingError: models of this kind, or nets of this shape, are not pruned, or the loss is not finite.
    """
    if kind not in _KINDS:
        raise TrainingError(f"Prune: a model of kind '{kind}' cannot be pruned.{did_you_mean(kind, _KINDS)} Distil it into a smaller one.")
    module, name = _KINDS[kind]
    pruner: Pruner = getattr(importlib.import_module(f"mainspring.models.adapters.{module}"), name)
    return pruner(predictor, settings, step, rows, categorical, seed=seed, threads=threads, progress=progress)
