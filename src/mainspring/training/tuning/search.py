"""What a search is: the declaration, and a trial of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.training.tuning.extrapolation import looks
from mainspring.training.tuning.space import Space

Sampler = Literal["grid", "random", "tpe", "gp"]
Pruner = Literal["extrapolation", "hyperband", "asha"]


@dataclass(frozen=True, slots=True)
class Search:
    """What to try, in which order, how often, and when a trial is stopped early.

    ``space`` names ranges. ``sampler``: ``grid`` spreads at most ``trials`` points evenly, ``random`` draws, ``tpe`` is a
    tree-structured Parzen estimator (Bergstra et al., 2011), ``gp`` an exact Gaussian process with expected improvement.

    Trials that report are stopped early where ``steps``, the most that one of them takes, is known. ``pruner``: ``extrapolation``
    stops a trial when the line through its last two values does not reach the best finished one (see
    `mainspring.training.tuning.extrapolation`); ``asha`` (Li et al., 2018) stops at steps ``first_step``, times ``reduction``, and
    so on, all but the best ``1 / reduction`` of what has come so far; ``hyperband`` (Li et al., 2017) does so on several such
    ladders that begin later and later; None stops nothing. No trial is looked at before ``first_step``, by default a ninth of
    ``steps``.

    After ``timeout`` seconds no trial begins. One worker, one seed: the same trials.
    """

    space: Space
    sampler: Sampler = "tpe"
    pruner: Pruner | None = "extrapolation"
    trials: int = 50
    timeout: float | None = None
    seed: int = 0
    goal: Literal["maximize", "minimize"] = "maximize"
    steps: int | None = None
    first_step: int | None = None
    reduction: int = 2

    def __post_init__(self) -> None:
        if not self.space:
            raise DeclarationError("Search: the space is empty. Name at least one range, such as {'rate': Real(0.01, 0.3, log=True)}.")
        for what, value, known in (
            ("sampler", self.sampler, get_args(Sampler)),
            ("pruner", self.pruner, (None, *get_args(Pruner))),
            ("goal", self.goal, ("maximize", "minimize")),
        ):
            if value not in known:
                raise DeclarationError(f"Search: {what} {value!r} is not known.{did_you_mean(str(value), filter(None, known))}")
        if self.trials < 1 or self.first_rung < 1 or self.reduction < 2:
            raise DeclarationError("Search: needs trials >= 1, first_step >= 1 and reduction >= 2.")
        if self.pruner == "hyperband" and (self.steps is None or self.steps <= self.first_rung):
            raise DeclarationError("Search: hyperband needs steps, the most that a trial reports, above first_step.")

    @property
    def first_rung(self) -> int:
        """The first step at which a trial may be stopped."""
        return max((self.steps or 1) // 9, 1) if self.first_step is None else self.first_step

    def judges(self, step: int) -> bool:
        """Whether the pruner looks at what trials report at this step."""
        if self.pruner is None or (self.pruner == "extrapolation" and self.steps is None):
            return False
        if self.pruner == "extrapolation":
            return step in looks(self.first_rung, self.steps or 0)
        rung = self.first_rung
        while rung < step:
            rung *= self.reduction
        return rung == step


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
