"""Models, baselines and labels: what is predicted, from what it is learned, and what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.spec.aggregate import Value
from mainspring.spec.source import Source

OBJECTIVES = ("regression", "regression_l1", "huber")


@dataclass(frozen=True, slots=True)
class Label:
    """The truth of a prediction: ``column`` of the fact in ``source`` whose ``on`` equals the request's.

    A label counts from the fact's known time; a request without one ``matures_after`` its event time gets ``otherwise``,
    or, where that is None, is left out of training and evaluation.
    """

    source: Source
    column: str
    on: str
    matures_after: str
    otherwise: Value = None

    def __post_init__(self) -> None:
        for column in (self.column, self.on):
            if column not in self.source.schema:
                raise DeclarationError(
                    f"Label: source '{self.source.name}' has no column '{column}'.{did_you_mean(column, self.source.schema.names)}"
                )
        parse_duration(self.matures_after)

    @property
    def matures_after_us(self) -> int:
        """Microseconds after which a label that has not come is taken as never coming."""
        return parse_duration(self.matures_after)


@dataclass(frozen=True, slots=True)
class LightGBM:
    """Gradient-boosted trees, with when and on how much history they are retrained.

    ``offset`` names a feature that the trees correct instead of predicting from nothing; where it is null, it is 0 if there
    were such rows in training, and else the model leaves the answer to the fallback. ``interval`` are the two quantiles of
    the predictive interval, from split conformal residuals on the newest ``holdout`` of the training data. ``ignore`` names
    features that only other features use.
    """

    objective: str = "regression"
    trees: int = 300
    leaves: int = 31
    learning_rate: float = 0.05
    min_leaf_rows: int = 20
    feature_fraction: float = 1.0
    l2: float = 0.0
    seed: int = 0
    offset: str | None = None
    interval: tuple[float, float] | None = None
    history: str | None = None
    holdout: str = "14d"
    retrain_every: str | None = None
    ignore: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ignore", tuple(self.ignore))
        if self.objective not in OBJECTIVES:
            raise DeclarationError(f"LightGBM: objective '{self.objective}' is not known.{did_you_mean(self.objective, OBJECTIVES)}")
        if self.trees < 1 or self.leaves < 2 or not 0 < self.learning_rate <= 1:
            raise DeclarationError("LightGBM: needs trees >= 1, leaves >= 2 and 0 < learning_rate <= 1.")
        if self.interval is not None and not 0 < self.interval[0] < self.interval[1] < 1:
            raise DeclarationError(f"LightGBM: interval {self.interval} must be two rising quantiles between 0 and 1.")
        for duration in (self.history, self.holdout, self.retrain_every):
            if duration is not None:
                parse_duration(duration)

    @property
    def holdout_us(self) -> int:
        """Length of the newest stretch that is held back from training, in microseconds."""
        return parse_duration(self.holdout)

    @property
    def history_us(self) -> int | None:
        """How far back training rows reach, in microseconds; None for all."""
        return None if self.history is None else parse_duration(self.history)

    @property
    def retrain_every_us(self) -> int | None:
        """The retraining schedule in microseconds, or None."""
        return None if self.retrain_every is None else parse_duration(self.retrain_every)


@dataclass(frozen=True, slots=True)
class LinearRule:
    """Baseline and last resort: a least-squares line on one numeric feature; a null input uses the training mean."""

    name: str
    on: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The features it reads."""
        return (self.on,)


@dataclass(frozen=True, slots=True)
class GroupMedian:
    """Baseline: the training median per group of request columns; an unseen group gets the overall median."""

    name: str
    by: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", tuple(self.by))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns it groups by."""
        return tuple(self.by)


@dataclass(frozen=True, slots=True)
class RecentRatio:
    """Baseline: a group median times the mean ratio of truth to it, per ``band``, over labels of the last ``window``.

    Labels count ``delay`` after they are known, as in a nightly job.
    """

    name: str
    base: GroupMedian
    band: str
    window: str = "7d"
    delay: str = "1d"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns it reads."""
        return (*self.base.by, self.band)


Baseline = LinearRule | GroupMedian | RecentRatio
