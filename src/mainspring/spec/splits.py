"""Splits that do not leak: which rows train, which choose (early stopping, tuning, calibration) and which judge.

A split is a frozen declaration that can be part of a hash (`to_dict`) and gives the same rows for ever. None puts a row on two
sides, and where time parts the sides every label that one side learns from was known before the next side begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from mainspring.clock import format_instant, parse_duration
from mainspring.errors import DeclarationError, TrainingError, did_you_mean

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a split looks at: ``as_of`` and ``label_known_at`` (int64, microseconds UTC) and ``group``, each of shape ``(n,)``.

    ``until`` ends the last side; without it, that is just after the newest row.
    """

    as_of: Ints
    label_known_at: Ints
    group: npt.NDArray[Any] | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        shapes = {one.shape for one in (self.as_of, self.label_known_at, self.group) if one is not None}
        if len(shapes) != 1 or self.as_of.ndim != 1 or not len(self.as_of):
            raise TrainingError(f"Rows to split: shapes {sorted(shapes)} are not those of arrays of one length above 0.")

    @property
    def end(self) -> int:
        """The instant that ends the last side."""
        return int(self.as_of.max()) + 1 if self.until is None else self.until

    def groups(self, split: Split) -> npt.NDArray[Any]:
        """The group of each row.

        Raises:
            TrainingError: there is none.
        """
        if self.group is None:
            raise TrainingError(f"{split}: the rows have no group. Give Rows(group=...), one value per row.")
        return self.group


@dataclass(frozen=True, slots=True)
class Fold:
    """Row numbers of each side, rising; ``test`` is empty where the split has no such side."""

    train: Ints
    validation: Ints
    test: Ints


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """The newest ``test`` judges, ``validation`` before it chooses, what is older trains; ``gap`` lies before each of the two.

    Purged: a row whose label became known only when a later side had begun is on no side. The gap (an embargo) is for what
    outlasts the labels: windows of features that overlap. ``window`` bounds how far before its end training reaches back.
    """

    validation: str
    test: str | None = None
    gap: str | None = None
    window: str | None = None

    def __post_init__(self) -> None:
        for duration in (self.validation, self.test, self.gap, self.window):
            if duration is not None:
                parse_duration(duration)

    def folds(self, rows: Rows) -> tuple[Fold, ...]:
        """One fold.

        Raises:
            TrainingError: a side that the split declares is empty (here and in every split); the message says what to mend.
        """
        return (_fold(self, rows, *self.sides(rows), judges=self.test is not None),)

    def sides(self, rows: Rows) -> tuple[Bools, Bools, Bools]:
        """Which rows train, choose and judge."""
        gap = _microseconds(self.gap)
        test = rows.end - _microseconds(self.test)
        validation_end = test - (gap if self.test else 0)
        validation = validation_end - parse_duration(self.validation)
        start = validation - gap - parse_duration(self.window) if self.window else np.iinfo(np.int64).min
        known = rows.label_known_at
        return (
            (rows.as_of >= start) & (rows.as_of < validation - gap) & (known < validation),
            (rows.as_of >= validation) & (rows.as_of < validation_end) & ((known < test) | (self.test is None)),
            (rows.as_of >= test) & (rows.as_of < rows.end),
        )


@dataclass(frozen=True, slots=True)
class GroupSplit:
    """Whole groups on one side, drawn by a hash of ``seed`` and the group: a group keeps its side as data grows.

    ``validation`` and ``test`` are shares of the groups. For questions about groups never seen; time does not part the sides.
    """

    validation: float
    test: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.validation > 0 and self.test >= 0 and self.validation + self.test < 1):
            raise DeclarationError(
                f"GroupSplit: shares validation={self.validation:g} and test={self.test:g} leave nothing to train. "
                "Give shares above 0 that add up to less than 1."
            )

    def folds(self, rows: Rows) -> tuple[Fold, ...]:
        """One fold."""
        return (_fold(self, rows, *self.sides(rows), judges=self.test > 0),)

    def sides(self, rows: Rows) -> tuple[Bools, Bools, Bools]:
        """Which rows train, choose and judge."""
        distinct, codes = _codes(rows.groups(self))
        place = np.array([xxhash.xxh3_64_intdigest(repr(group).encode(errors="surrogatepass"), self.seed) for group in distinct])
        share = (place.astype(np.uint64) >> np.uint64(11))[codes] / 2.0**53
        return share >= self.test + self.validation, (share >= self.test) & (share < self.test + self.validation), share < self.test


@dataclass(frozen=True, slots=True)
class TimeGroupSplit:
    """New groups in newer times: a row is on a side where both ``time`` and ``group`` put it, else on none."""

    time: TimeSplit
    group: GroupSplit

    def __post_init__(self) -> None:
        if (self.time.test is None) != (self.group.test == 0):
            raise DeclarationError("TimeGroupSplit: one of time and group has a test side, the other has none. Give both one, or neither.")

    def folds(self, rows: Rows) -> tuple[Fold, ...]:
        """One fold."""
        return (_fold(self, rows, *self.sides(rows), judges=self.time.test is not None),)

    def sides(self, rows: Rows) -> tuple[Bools, Bools, Bools]:
        """Which rows train, choose and judge."""
        train, validation, test = (one & other for one, other in zip(self.time.sides(rows), self.group.sides(rows), strict=True))
        return train, validation, test


@dataclass(frozen=True, slots=True)
class LeaveLastOut:
    """Each group's newest ``test`` rows judge, the ``validation`` before them choose, older ones train: "what comes next?".

    A group of ``validation + test`` rows or fewer only trains. Rows of one instant in a group stand in order of their numbers. A
    row that trains or chooses goes to no side if its label became known only when its group's next side had begun.
    Between groups the future stays visible, as in most published figures for recommenders: what is popular later trains too.
    `TimeSplit` shows what a launch would have brought (Ji, Sun, Zhang, Li, ACM TOIS 41, 2023).
    """

    validation: int = 1
    test: int = 1

    def __post_init__(self) -> None:
        if self.validation < 1 or self.test < 0:
            raise DeclarationError(f"LeaveLastOut: validation={self.validation} and test={self.test} must be at least 1 and 0 rows.")

    def folds(self, rows: Rows) -> tuple[Fold, ...]:
        """One fold."""
        return (_fold(self, rows, *self.sides(rows), judges=self.test > 0),)

    def sides(self, rows: Rows) -> tuple[Bools, Bools, Bools]:
        """Which rows train, choose and judge."""
        codes = _codes(rows.groups(self))[1]
        order = np.lexsort((rows.as_of, codes))
        sizes = np.bincount(codes)
        ends = np.cumsum(sizes)
        left = np.empty(len(codes), dtype=np.int64)
        left[order] = ends[codes[order]] - 1 - np.arange(len(codes))
        held = self.validation + self.test
        long = sizes > held
        newest = rows.as_of[order]
        validation_begins = newest[np.where(long, ends - held, 0)][codes]
        test_begins = newest[np.where(long & (self.test > 0), ends - self.test, 0)][codes]
        taken = long[codes]
        known = rows.label_known_at
        return (
            ~taken | ((left >= held) & (known < validation_begins)),
            taken & (left >= self.test) & (left < held) & ((known < test_begins) | (self.test == 0)),
            taken & (left < self.test),
        )


@dataclass(frozen=True, slots=True)
class WalkForward:
    """Purged walk-forward: ``each`` made ``count`` times, ``step`` apart, the last one at the end of the data.

    Every fold sees only what was known at its time: what a model retrained every ``step`` would have brought. With
    ``each.window`` training slides, else it grows. Source: Lopez de Prado, "Advances in Financial Machine Learning", 2018, 7.
    """

    each: TimeSplit
    count: int = 5
    step: str = "7d"

    def __post_init__(self) -> None:
        parse_duration(self.step)
        if self.count < 1:
            raise DeclarationError(f"WalkForward: count={self.count} folds are none. Give 1 or more.")

    def folds(self, rows: Rows) -> tuple[Fold, ...]:
        """``count`` folds, the oldest first."""
        step = parse_duration(self.step)
        ends = [rows.end - step * back for back in reversed(range(self.count))]
        return tuple(self.each.folds(Rows(rows.as_of, rows.label_known_at, rows.group, end))[0] for end in ends)


OneFold = TimeSplit | GroupSplit | TimeGroupSplit | LeaveLastOut
Split = OneFold | WalkForward

_KINDS: Mapping[str, type[Any]] = {one.__name__: one for one in (TimeSplit, GroupSplit, TimeGroupSplit, LeaveLastOut, WalkForward)}


def to_dict(split: Split) -> dict[str, Any]:
    """A form that JSON can hold: the split's kind and its settings."""
    return {"split": type(split).__name__, **asdict(split)}


def from_dict(body: Mapping[str, Any]) -> Split:
    """The split that `to_dict` wrote.

    Raises:
        DeclarationError: there is no such split or setting.
    """
    kind = str(body.get("split"))
    if kind not in _KINDS:
        raise DeclarationError(f"Split '{kind}' is not known.{did_you_mean(kind, _KINDS)}")
    nested = {"time": TimeSplit, "each": TimeSplit, "group": GroupSplit}
    settings = {name: value for name, value in body.items() if name != "split"}
    unknown = settings.keys() - {field.name for field in fields(_KINDS[kind])}
    if unknown:
        raise DeclarationError(f"Split '{kind}' has no setting {sorted(unknown)[0]!r}.")
    split: Split = _KINDS[kind](**{name: nested[name](**value) if name in nested else value for name, value in settings.items()})
    return split


def _fold(split: Split, rows: Rows, train: Bools, validation: Bools, test: Bools, *, judges: bool) -> Fold:
    fold = Fold(*(np.flatnonzero(side) for side in (train, validation, test)))
    needed = {"training": fold.train, "validation": fold.validation, **({"test": fold.test} if judges else {})}
    for name, side in needed.items():
        if not len(side):
            raise TrainingError(
                f"{split}: no {name} rows of {len(rows.as_of)} before {format_instant(rows.end)}. Labels that come late leave a side "
                "empty: lengthen the gap beyond the label's delay, shorten the sides, or ingest more history."
            )
    return fold


def _codes(group: npt.NDArray[Any]) -> tuple[list[Any], Ints]:
    """The distinct groups and the number of each row's among them; None is a group of its own."""
    if group.dtype != object:
        distinct, codes = np.unique(group, return_inverse=True)
        return distinct.tolist(), codes
    numbers: dict[Any, int] = {}
    found = np.array([numbers.setdefault(value, len(numbers)) for value in group.tolist()], dtype=np.int64)
    return list(numbers), found


def _microseconds(duration: str | None) -> int:
    return 0 if duration is None else parse_duration(duration)
