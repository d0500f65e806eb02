"""Features: columns of the request, aggregates of past facts, and plain NumPy functions of both."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

from mainspring.errors import DeclarationError
from mainspring.schema import Type, python_type
from mainspring.spec.aggregate import Aggregate, Value


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the request, used as a feature as it is."""

    name: str
    type: Type
    default: Value = None


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
