"""Policy, monitors, rollout: how a system answers, watches itself and changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError

PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens between the model and the answer.

    ``fallback`` is the chain after the current model: ``'previous'`` for the version before it, or the name of a declared
    `LinearRule`. ``feature_deadline`` bounds the feature read; what is late takes its declared default. ``deadline`` bounds
    the whole answer: a model that is not expected to answer by then, or does not, gives way to the rules of the chain.
    ``floor`` and ``ceiling`` clip the answer. With ``cache`` a model's scores are remembered for so long, at most ``cache_rows`` of them,
    and given again for the same values of all its inputs.
    """

    fallback: Sequence[str] = ()
    feature_deadline: str = "20ms"
    deadline: str = "1s"
    floor: float | None = None
    ceiling: float | None = None
    cache: str | None = None
    cache_rows: int = 100_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "fallback", tuple(self.fallback))
        parse_duration(self.feature_deadline)
        parse_duration(self.deadline)
        if self.cache is not None:
            parse_duration(self.cache)
        if self.cache_rows < 1:
            raise DeclarationError(f"Policy: cache_rows={self.cache_rows} keeps nothing. Give 1 or more, or leave out cache.")

    @property
    def cache_us(self) -> int | None:
        """How long a score is remembered, in microseconds; None for not at all."""
        return None if self.cache is None else parse_duration(self.cache)

    @property
    def feature_deadline_us(self) -> int:
        """The feature read's deadline in microseconds."""
        return parse_duration(self.feature_deadline)

    @property
    def deadline_us(self) -> int:
        """The answer's deadline in microseconds."""
        return parse_duration(self.deadline)


@dataclass(frozen=True, slots=True)
class Monitor:
    """Something that is watched per ``window`` and may ask for retraining.

    ``watch='error'`` follows the error of matured labels, reported per group of ``by``, alarming when its level rises;
    ``watch='drift'`` compares the distribution of every feature (or of ``features``) with a baseline of own windows.
    """

    watch: Literal["error", "drift"]
    window: str = "1d"
    by: Sequence[str] = ()
    features: Sequence[str] = ()
    retrain: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", tuple(self.by))
        object.__setattr__(self, "features", tuple(self.features))
        if self.watch not in ("error", "drift"):
            raise DeclarationError(f"Monitor: watch={self.watch!r} is not known. Use 'error' or 'drift'.")
        parse_duration(self.window)

    @property
    def window_us(self) -> int:
        """The window in microseconds."""
        return parse_duration(self.window)


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a new version reaches the users.

    The gate compares challenger and champion on the same held-out rows. Then the challenger answers in shadow for at least
    ``shadow``, and to each share of ``steps``, sticky by the request column ``unit``; a step lasts at least ``step`` and
    ``min_labels`` matured answers. It goes on when the challenger is shown not to be worse by ``margin`` (relative) and back
    when it is shown to be, both at error probability ``alpha`` however often one looks; what is undecided after ``patience``
    goes back too. After a retraining the next waits ``cooldown``.
    """

    unit: str
    steps: Sequence[float] = (0.01, 0.10, 1.0)
    shadow: str = "1d"
    step: str = "1d"
    min_labels: int = 200
    margin: float = 0.02
    alpha: float = 0.05
    patience: str = "10d"
    cooldown: str = "7d"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[0] <= 0 or self.steps[-1] != 1.0:
            raise DeclarationError(f"Rollout: steps {tuple(self.steps)} must rise from above 0 to exactly 1.0.")
        if not 0 < self.alpha < 0.5 or self.margin <= 0 or self.min_labels < 1:
            raise DeclarationError("Rollout: needs 0 < alpha < 0.5, margin > 0 and min_labels >= 1.")
        for duration in (self.shadow, self.step, self.patience, self.cooldown):
            parse_duration(duration)
