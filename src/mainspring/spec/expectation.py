"""What a source is expected to hold to beyond the values of its columns: fact by fact against others, and batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Ahead:
    """No fact happens more than ``at_most`` (a duration) after it arrives: one that does is quarantined.

    A fact arrives when it is taken in, or at its known time where that is earlier.
    """

    at_most: str

    def __post_init__(self) -> None:
        parse_duration(self.at_most)


@dataclass(frozen=True, slots=True)
class Unique:
    """No two facts of a batch have the same value in ``column``: the later one is quarantined.

    Nulls may repeat, and so may a fact that is delivered again under its event id.
    """

    column: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """An event id comes with the same values in ``columns`` whenever it comes, in this batch or in all the log.

    A fact that breaks it is quarantined. Other columns of a known event id may change: that is a correction.
    """

    columns: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.columns, str) or not self.columns:
            raise DeclarationError(f"Fixed({self.columns!r}): give a list of columns, for example Fixed(['card_id']).")
        object.__setattr__(self, "columns", tuple(self.columns))


@dataclass(frozen=True, slots=True)
class Nulls:
    """At most this share of a batch, 0 to 1, is null in ``column``. With ``refuse`` a batch with more is quarantined whole."""

    column: str
    at_most: float
    refuse: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.at_most < 1:
            raise DeclarationError(f"Nulls('{self.column}'): at_most={self.at_most} is no share. Give 0 or more and less than 1.")


@dataclass(frozen=True, slots=True)
class Fresh:
    """The newest fact of a batch happened at most ``within`` (a duration) ago. With ``refuse`` an older batch is quarantined whole."""

    within: str
    refuse: bool = False

    def __post_init__(self) -> None:
        parse_duration(self.within)


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch has this many rows, bounds inclusive. With ``refuse`` another batch is quarantined whole."""

    at_least: int | None = None
    at_most: int | None = None
    refuse: bool = False

    def __post_init__(self) -> None:
        low, high = self.at_least or 0, self.at_most
        if low < 0 or (self.at_least is None and high is None) or (high is not None and high < max(low, 1)):
            raise DeclarationError(f"Rows(at_least={self.at_least}, at_most={high}): no batch could hold to it, or every one does.")


Expectation = Ahead | Unique | Fixed | Nulls | Fresh | Rows


def columns_of(expectation: Expectation) -> tuple[str, ...]:
    """The columns that an expectation names."""
    if isinstance(expectation, Fixed):
        return tuple(expectation.columns)
    return (expectation.column,) if isinstance(expectation, Unique | Nulls) else ()
