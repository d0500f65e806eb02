"""A promised quality: a bound on a measure of the answers, with the measure's own options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.measures import MEASURES, Measure, labelled

_AT = "at_"
_CUTS = ("threshold", "alert_rate")
"""Options that are declared with `at_` before their name."""


@dataclass(frozen=True, slots=True)
class Quality:
    """A bound on a measure; with ``of``, on its ratio to the same measure of a declared baseline.

    ``options`` are pairs of the measure's own options and their values: ``(("alert_rate", 0.005),)``.

    Raises:
        DeclarationError: there is no such measure or option, one that it needs is missing, there is no bound, or the bounds cross.
    """

    metric: str
    low: float | None = None
    high: float | None = None
    of: str | None = None
    options: Sequence[tuple[str, Any]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple((str(name), value) for name, value in self.options))
        if self.metric not in MEASURES:
            raise self._error(f"there is no such measure.{did_you_mean(self.metric, MEASURES)}")
        if self.low is None and self.high is None:
            raise self._error("give a lower or an upper bound.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise self._error(f"the lower bound {self.low:g} is above the upper one, {self.high:g}.")
        if self.of is not None and self.measure.better not in ("higher", "lower"):
            raise self._error(f"a ratio to '{self.of}' says nothing of a measure that aims at a level. Bound the measure itself.")
        self._check_options()

    @property
    def measure(self) -> Measure:
        """What is known of the measure."""
        return MEASURES[self.metric]

    @property
    def subject(self) -> str:
        """What is bounded: ``mae``, ``mae / route_median`` or ``recall at alert_rate 0.005``."""
        named = labelled(self.metric, dict(self.options))
        return named if self.of is None else f"{named} / {self.of}"

    def holds(self, value: float) -> bool:
        """Whether a value lies within the bounds, both ends inclusive."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def missed_by(self, low: float, high: float) -> bool:
        """Whether a whole interval lies outside of the bounds: the promise is shown to be missed."""
        return (self.low is not None and high < self.low) or (self.high is not None and low > self.high)

    def __str__(self) -> str:
        subject = self.subject
        if self.low is None:
            return f"{subject} <= {self.high:g}"
        return f"{subject} >= {self.low:g}" if self.high is None else f"{subject} in [{self.low:g}, {self.high:g}]"

    def _check_options(self) -> None:
        known, given = self.measure, [name for name, _ in self.options]
        for name, value in self.options:
            if name not in known.options:
                raise self._error(f"there is no option '{_declared(name)}'.{did_you_mean(_declared(name), map(_declared, known.options))}")
            if not _fits(name, value):
                raise self._error(f"{_declared(name)}={value!r} is not {_MEANING[name]}.")
        needed = [name for name in given if name in known.needed]
        if known.needed and len(needed) != 1:
            raise self._error(f"give one of {' or '.join(f'{_declared(name)}=' for name in known.needed)}.")

    def _error(self, problem: str) -> DeclarationError:
        return DeclarationError(f"Quality '{self.metric}': {problem}")


_MEANING = {
    "threshold": "a number",
    "alert_rate": "a share of rows above 0, at most 1",
    "quantile": "a quantile between 0 and 1",
    "k": "a number of places, 1 or more",
    "bins": "a number of bins, 1 or more",
    "gains": "'exponential' or 'linear'",
    "empty": "a number",
}


def _fits(option: str, value: Any) -> bool:
    if option == "gains":
        return value in ("exponential", "linear")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return False
    if option in ("k", "bins"):
        return isinstance(value, int) and value >= 1
    return 0 < value <= 1 if option == "alert_rate" else option != "quantile" or 0 < value < 1


def _declared(option: str) -> str:
    return f"{_AT}{option}" if option in _CUTS else option


def _options(metric: str, given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options as a declaration writes them, ``at_alert_rate=0.005``, by their own names."""
    for name in given:
        if name in _CUTS:
            raise DeclarationError(f"Quality '{metric}': there is no option '{name}'. Did you mean '{_AT}{name}'?")
    return tuple((name.removeprefix(_AT), value) for name, value in sorted(given.items()))


def at_least(metric: str, value: float, *, of: str | None = None, **options: Any) -> Quality:
    """The measure must be at least ``value``: ``at_least('recall', 0.5, at_alert_rate=0.005)`` is that of the highest 0.5 % of scores."""
    return Quality(metric, low=value, of=of, options=_options(metric, options))


def at_most(metric: str, value: float, *, of: str | None = None, **options: Any) -> Quality:
    """The measure must be at most ``value``: ``at_most('mae', 0.8, of='route_median')`` is 20 % below that baseline."""
    return Quality(metric, high=value, of=of, options=_options(metric, options))


def between(metric: str, low: float, high: float, **options: Any) -> Quality:
    """The measure must lie in ``[low, high]``."""
    return Quality(metric, low, high, options=_options(metric, options))
