"""Labels and baselines: the truth of a prediction, and what a model must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.spec.aggregate import Value
from mainspring.spec.source import Source


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
