"""Views of a source's facts per key, and the aggregates over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.schema import Type

if TYPE_CHECKING:
    from mainspring.spec.source import Source

Value = str | int | float | bool | None

_NUMBERS = (Type.INT, Type.FLOAT, Type.BOOL)
_ORDERED = (Type.INT, Type.FLOAT, Type.INSTANT)
_ANY = tuple(Type)


class _Kind(NamedTuple):
    """What an aggregation takes and gives: types of its column (none if it takes none), its own type (None for the column's)."""

    columns: tuple[Type, ...]
    result: Type | None


KINDS = {
    "count": _Kind((), Type.INT),
    "rate": _Kind((), Type.FLOAT),
    "time_since_last": _Kind((), Type.FLOAT),
    "sum": _Kind(_NUMBERS, None),
    "mean": _Kind(_NUMBERS, Type.FLOAT),
    "min": _Kind(_ORDERED, None),
    "max": _Kind(_ORDERED, None),
    "variance": _Kind(_NUMBERS, Type.FLOAT),
    "stddev": _Kind(_NUMBERS, Type.FLOAT),
    "first": _Kind(_ANY, None),
    "last": _Kind(_ANY, None),
    "first_k": _Kind(_ANY, Type.JSON),
    "last_k": _Kind(_ANY, Type.JSON),
    "distinct": _Kind(_ANY, Type.INT),
    "approx_distinct": _Kind(_ANY, Type.INT),
    "top_k": _Kind(_ANY, Type.JSON),
    "approx_percentile": _Kind((Type.INT, Type.FLOAT), Type.FLOAT),
    "histogram": _Kind((Type.INT, Type.FLOAT), Type.JSON),
    "ewma": _Kind(_NUMBERS, Type.FLOAT),
    "streak": _Kind((Type.BOOL,), Type.INT),
}
COUNTING = ("count", "rate", "distinct", "approx_distinct", "histogram", "streak")
"""Aggregations that are zero where there is nothing; every other is null."""
_WINDOWED = ("rate", "streak")


class Options(TypedDict, total=False):
    """What every aggregate of a `View` takes."""

    where: str
    by: str
    name: str
    default: Value
    description: str


@dataclass(frozen=True, slots=True)
class View:
    """The facts of a source seen per key; its methods declare features.

    ``columns`` are the source's key columns, ``on`` the request's columns that are matched to them, in order.
    ``required`` refuses a request whose key was never seen, instead of serving it with missing values.

    Every method takes ``where=``, a bool column of the source that says which facts count (derive one for a condition of
    your own); ``by=``, a text, int or bool column whose values each get an answer of their own, as a map; ``name=``,
    ``default=`` and ``description=``. A ``window`` is ``[as_of - window, as_of)``; without one an aggregate is over all
    time. Nulls are skipped.
    """

    source: Source
    columns: tuple[str, ...]
    on: tuple[str, ...]
    name: str
    required: bool = False

    def count(self, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Number of facts; 0 when there are none."""
        return self._aggregate("count", None, window, **options)

    def rate(self, window: str, **options: Unpack[Options]) -> Aggregate:
        """Facts a second over the window; 0 when there are none."""
        return self._aggregate("rate", None, window, **options)

    def time_since_last(self, **options: Unpack[Options]) -> Aggregate:
        """Seconds since the newest fact; null when there is none."""
        return self._aggregate("time_since_last", None, None, **options)

    def sum(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Sum of the values; null when there are none, and where whole numbers leave 64 bits."""
        return self._aggregate("sum", column, window, **options)

    def mean(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Mean of the values; null when there are none."""
        return self._aggregate("mean", column, window, **options)

    def min(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Least value; null when there are none."""
        return self._aggregate("min", column, window, **options)

    def max(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Greatest value; null when there are none."""
        return self._aggregate("max", column, window, **options)

    def variance(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Sample variance (divisor n - 1); null below two values."""
        return self._aggregate("variance", column, window, **options)

    def stddev(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Square root of the sample variance; null below two values."""
        return self._aggregate("stddev", column, window, **options)

    def first(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """The oldest value; null when there are none."""
        return self._aggregate("first", column, window, **options)

    def last(self, column: str, window: str | None = None, *, max_age: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Without a window the column in the newest fact, even when it is null there, and missing when older than ``max_age``.

        With a window the newest value in it.
        """
        return self._aggregate("last", column, window, max_age=max_age, **options)

    def first_k(self, column: str, k: int, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """The ``k`` oldest values, oldest first, as a list; null when there are none."""
        return self._aggregate("first_k", column, window, argument=k, **options)

    def last_k(self, column: str, k: int, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """The ``k`` newest values, newest first, as a list; null when there are none."""
        return self._aggregate("last_k", column, window, argument=k, **options)

    def distinct(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Number of different values, exact; 0 when there are none."""
        return self._aggregate("distinct", column, window, **options)

    def approx_distinct(self, column: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Number of different values: exact up to 1,024, then within about 1.6 % (HyperLogLog, 4,096 registers)."""
        return self._aggregate("approx_distinct", column, window, **options)

    def top_k(self, column: str, k: int, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """The ``k`` most frequent values, as a list; ties go to the lesser value. Null when there are none."""
        return self._aggregate("top_k", column, window, argument=k, **options)

    def approx_percentile(self, column: str, q: float, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """The ``q`` quantile (0 to 1) within 1 % of its value (nearer to zero than 1e-9 it is zero); null when there are none."""
        return self._aggregate("approx_percentile", column, window, argument=float(q), **options)

    def histogram(self, column: str, edges: Sequence[float], window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """How many values lie below the first edge, from each edge to the next, and from the last on: a list of whole numbers."""
        return self._aggregate("histogram", column, window, argument=tuple(map(float, edges)), **options)

    def ewma(self, column: str, half_life: str, window: str | None = None, **options: Unpack[Options]) -> Aggregate:
        """Mean whose weights halve with every ``half_life`` between two facts; null when there are none."""
        return self._aggregate("ewma", column, window, argument=half_life, **options)

    def streak(self, column: str, window: str, **options: Unpack[Options]) -> Aggregate:
        """How many of the newest values in a row are true."""
        return self._aggregate("streak", column, window, **options)

    def _aggregate(
        self, function: str, column: str | None, window: str | None, *, argument: Any = None, max_age: str | None = None,
        where: str | None = None, by: str | None = None, name: str | None = None, default: Value = None, description: str = "",
    ) -> Aggregate:  # fmt: skip
        parts = [column, function, _written(argument), window, where and f"where_{where}", by and f"by_{by}"]
        given = name or f"{self.name}__{'_'.join(part for part in parts if part)}"
        return Aggregate(self, function, column, window, max_age, default, given, argument, where, by, description)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A fold over the facts of one view; see `View` for what each function gives.

    ``argument`` is k, the quantile, the edges or the half-life of the functions that have one.

    Raises:
        DeclarationError: an unknown function, column or type, a duration or argument that makes no sense.
    """

    view: View
    function: str
    column: str | None
    window: str | None
    max_age: str | None
    default: Value
    name: str
    argument: Any = None
    where: str | None = None
    by: str | None = None
    description: str = ""
    type: Type = field(init=False)

    def __post_init__(self) -> None:
        if self.function not in KINDS:
            raise self._error(f"aggregation '{self.function}' is not known.{did_you_mean(self.function, KINDS)}")
        for duration in (self.window, self.max_age):
            if duration is not None:
                parse_duration(duration)
        if self.window is None and self.function in _WINDOWED:
            raise self._error(f"{self.function} needs a window.")
        if self.is_newest and (self.where or self.by):
            raise self._error("the newest fact has no where= or by=. Give a window, or declare a source of those facts alone.")
        if not self.is_newest and self.max_age:
            raise self._error("max_age belongs to last without a window. Leave one of the two out.")
        self._check_argument()
        kind = KINDS[self.function]
        result = kind.result
        if self.column is not None:
            found = self._column_type(self.column, kind.columns, self.function)
            result = result or (Type.INT if self.function == "sum" and found == Type.BOOL else found)
        if self.where is not None:
            self._column_type(self.where, (Type.BOOL,), "where=")
        if self.by is not None:
            self._column_type(self.by, (Type.STR, Type.INT, Type.BOOL), "by=")
            result = Type.JSON
        object.__setattr__(self, "type", result)

    @property
    def is_newest(self) -> bool:
        """Whether this is an attribute: the column of the newest fact, whatever it holds."""
        return self.function == "last" and self.window is None

    @property
    def columns(self) -> tuple[str, ...]:
        """The source's columns that it reads besides the keys."""
        return tuple(column for column in (self.column, self.where, self.by) if column is not None)

    @property
    def window_us(self) -> int | None:
        """The window in microseconds, or None for a lifetime."""
        return None if self.window is None else parse_duration(self.window)

    @property
    def max_age_us(self) -> int | None:
        """The maximal age in microseconds, or None for no limit."""
        return None if self.max_age is None else parse_duration(self.max_age)

    def _check_argument(self) -> None:
        argument = self.argument
        if self.function in ("first_k", "last_k", "top_k") and not (type(argument) is int and 1 <= argument <= 1_000):
            raise self._error(f"k is {argument!r}. Use a whole number from 1 to 1,000.")
        if self.function == "approx_percentile" and not (isinstance(argument, float | int) and 0 <= argument <= 1):
            raise self._error(f"the quantile is {argument!r}. Use a number from 0 to 1.")
        if self.function == "histogram" and (not argument or list(argument) != sorted(set(argument))):
            raise self._error(f"the edges are {argument!r}. Give at least one, each greater than the one before.")
        if self.function == "ewma":
            parse_duration(argument)

    def _column_type(self, column: str, allowed: tuple[Type, ...], what: str) -> Type:
        source = self.view.source
        if column not in source.columns:
            raise self._error(f"source '{source.name}' has no column '{column}'.{did_you_mean(column, source.columns.names)}")
        found = source.columns[column].type
        if found not in allowed:
            raise self._error(f"column '{column}' is {found}; {what} needs {' or '.join(allowed)}.")
        return found

    def _error(self, message: str) -> DeclarationError:
        keys = ", ".join(map(repr, self.view.columns))
        return DeclarationError(f"{self.view.source.name}.per({keys}).{self.function}({self.column or ''!r}, ...): {message}")


def _written(argument: Any) -> str | None:
    """An argument as a part of a feature's name."""
    if argument is None or isinstance(argument, tuple):
        return None
    return f"p{argument * 100:g}".replace(".", "_") if isinstance(argument, float) else str(argument)
