"""Features: columns of the request, folds over past facts, and plain NumPy functions of both."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.schema import Type, python_type

if TYPE_CHECKING:
    from mainspring.spec.source import Source

AGGREGATES = ("count", "sum", "mean", "min", "max", "last")
Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the request, used as a feature as it is."""

    name: str
    type: Type
    default: Value = None


@dataclass(frozen=True, slots=True)
class View:
    """The facts of a source seen per key; its methods declare features.

    ``columns`` are the source's key columns, ``on`` the request's columns that are matched to them, in order.
    ``required`` refuses a request whose key was never seen, instead of serving it with missing values.
    """

    source: Source
    columns: tuple[str, ...]
    on: tuple[str, ...]
    name: str
    required: bool = False

    def count(self, window: str | None = None, *, name: str | None = None) -> Aggregate:
        """Number of facts in ``[as_of - window, as_of)``; over all time without a window. 0 when there are none."""
        return self._aggregate("count", None, window, name=name)

    def sum(self, column: str, window: str | None = None, *, name: str | None = None, default: Value = None) -> Aggregate:
        """Sum of the non-null values in the window; null when there are none."""
        return self._aggregate("sum", column, window, name=name, default=default)

    def mean(self, column: str, window: str | None = None, *, name: str | None = None, default: Value = None) -> Aggregate:
        """Mean of the non-null values in the window; null when there are none."""
        return self._aggregate("mean", column, window, name=name, default=default)

    def min(self, column: str, window: str | None = None, *, name: str | None = None, default: Value = None) -> Aggregate:
        """Least non-null value in the window; null when there are none."""
        return self._aggregate("min", column, window, name=name, default=default)

    def max(self, column: str, window: str | None = None, *, name: str | None = None, default: Value = None) -> Aggregate:
        """Greatest non-null value in the window; null when there are none."""
        return self._aggregate("max", column, window, name=name, default=default)

    def last(self, column: str, *, max_age: str | None = None, name: str | None = None, default: Value = None) -> Aggregate:
        """The column's value in the newest fact, even when that value is null; missing when older than ``max_age``."""
        return self._aggregate("last", column, None, max_age=max_age, name=name, default=default)

    def _aggregate(
        self,
        function: str,
        column: str | None,
        window: str | None,
        *,
        max_age: str | None = None,
        name: str | None = None,
        default: Value = None,
    ) -> Aggregate:
        parts = [part for part in (column, function, window) if part]
        return Aggregate(self, function, column, window, max_age, default, name or f"{self.name}__{'_'.join(parts)}")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A fold over the facts of one view: a window, a lifetime, or the newest value."""

    view: View
    function: str
    column: str | None
    window: str | None
    max_age: str | None
    default: Value
    name: str
    type: Type = field(init=False)

    def __post_init__(self) -> None:
        source = self.view.source
        place = f"{source.name}.per({', '.join(map(repr, self.view.columns))}).{self.function}({self.column or ''!r}, ...)"
        if self.function not in AGGREGATES:
            raise DeclarationError(f"{place}: aggregation '{self.function}' is not known.{did_you_mean(self.function, AGGREGATES)}")
        for duration in (self.window, self.max_age):
            if duration is not None:
                parse_duration(duration)
        if self.column is None:
            object.__setattr__(self, "type", Type.INT)
            return
        if self.column not in source.columns:
            raise DeclarationError(
                f"{place}: source '{source.name}' has no column '{self.column}'.{did_you_mean(self.column, source.columns.names)}"
            )
        column_type = source.columns[self.column].type
        if self.function in ("sum", "mean") and column_type not in (Type.INT, Type.FLOAT, Type.BOOL):
            raise DeclarationError(f"{place}: column '{self.column}' is {column_type}; {self.function} needs int, float or bool.")
        if self.function in ("min", "max") and column_type in (Type.STR, Type.BOOL):
            raise DeclarationError(f"{place}: column '{self.column}' is {column_type}; {self.function} needs int, float or datetime.")
        result = Type.FLOAT if self.function == "mean" else column_type
        object.__setattr__(self, "type", Type.INT if self.function == "sum" and column_type == Type.BOOL else result)

    @property
    def window_us(self) -> int | None:
        """The window in microseconds, or None for a lifetime."""
        return None if self.window is None else parse_duration(self.window)

    @property
    def max_age_us(self) -> int | None:
        """The maximal age in microseconds, or None for no limit."""
        return None if self.max_age is None else parse_duration(self.max_age)


@dataclass(frozen=True, slots=True)
class Function:
    """A NumPy function of request columns and other features; parameters name its inputs.

    Arrays of equal length go in and one array of that length comes out, in training and in serving. Floats come as
    float64 with NaN for null, text as object arrays with None for null, instants as int64 microseconds UTC.
    """

    function: Callable[..., Any]
    name: str
    inputs: tuple[str, ...]
    type: Type = Type.FLOAT
    default: Value = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, for use and tests outside a System."""
        return self.function(*args, **kwargs)


Feature = Column | Aggregate | Function


@overload
def feature(function: Callable[..., Any], /) -> Function: ...
@overload
def feature(*, type: type = float, default: Value = None, name: str | None = None) -> Callable[[Callable[..., Any]], Function]: ...
def feature(
    function: Callable[..., Any] | None = None, /, *, type: type = float, default: Value = None, name: str | None = None
) -> Function | Callable[[Callable[..., Any]], Function]:
    """Declare a function as a feature: ``@feature`` or ``@feature(type=str)``; its result is float unless ``type`` says else.

    Raises:
        DeclarationError: the function takes ``*args``, ``**kwargs`` or no parameter at all.
    """

    def declare(function: Callable[..., Any]) -> Function:
        title = name or function.__name__
        parameters = inspect.signature(function).parameters.values()
        plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
        if not parameters or any(parameter.kind not in plain for parameter in parameters):
            raise DeclarationError(f"Feature function '{title}': parameters must be plain names of columns and features, at least one.")
        result, _ = python_type(type, f"Feature function '{title}'")
        return Function(function, title, tuple(parameter.name for parameter in parameters), result, default)

    return declare if function is None else declare(function)
