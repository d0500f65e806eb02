"""What a search is: the declaration, and a trial of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.training.tuning.space import Space

SAMPLERS = ("grid", "random", "tpe", "gp")
PRUNERS = (None, "hyperband", "asha")


@dataclass(frozen=True, slots=True)
class Search:
    """What to try, in which order, how often, and when a trial is stopped early.

    ``space`` names ranges. ``sampler``: ``grid`` spreads at most ``trials`` points evenly, ``random`` draws, ``tpe`` is a
    tree-structured Parzen estimator (Bergstra et al., 2011), ``gp`` an exact Gaussian process with expected improvement.
    ``pruner`` looks at what a trial reports at steps ``first_step``, times ``reduction``, and so on, and stops all but the best
    ``1 / reduction`` of what has come so far: ``asha`` (Li et al., 2018) with one such ladder, ``hyperband`` (Li et al., 2017) with
    several that begin later and later, up to ``steps``. After ``timeout`` seconds no trial begins. One worker, one seed: the same
    trials.
    """

    space: Space
    sampler: Literal["grid", "random", "tpe", "gp"] = "tpe"
    pruner: Literal["hyperband", "asha"] | None = None
    trials: int = 50
    timeout: float | None = None
    seed: int = 0
    goal: Literal["maximize", "minimize"] = "maximize"
    steps: int | None = None
    first_step: int = 1
    reduction: int = 3

    def __post_init__(self) -> None:
        if not self.space:
            raise DeclarationError("Search: the space is empty. Name at least one range, such as {'rate': Real(0.01, 0.3, log=True)}.")
        for what, value, known in (("sampler", self.sampler, SAMPLERS), ("goal", self.goal, ("maximize", "minimize"))):
            if value not in known:
                raise DeclarationError(f"Search: {what} {value!r} is not known.{did_you_mean(str(value), known)}")
        if self.pruner not in PRUNERS:
            raise DeclarationError(f"Search: pruner {self.pruner!r} is not known.{did_you_mean(str(self.pruner), PRUNERS[1:])}")
        if self.trials < 1 or self.first_step < 1 or self.reduction < 2:
            raise DeclarationError("Search: needs trials >= 1, first_step >= 1 and reduction >= 2.")
        if self.pruner == "hyperband" and (self.steps is None or self.steps <= self.first_step):
            raise DeclarationError("Search: hyperband needs steps, the most that a trial reports, above first_step.")


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: ``state`` is ``finished``, ``stopped`` (early, ``value`` is the last reported) or ``failed`` with its error."""

    number: int
    settings: Mapping[str, Any]
    value: float | None
    state: str
    steps: int = 0
    seconds: float = 0.0
    error: str = ""
