"""Values that come later in an event loop, handed on the moment they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")
_NOT_YET = object()


class Pending(Generic[T]):
    """A value that comes later, or the error that comes in its place, in the thread of the event loop.

    Whoever waits for it is called at once when it comes, where an `asyncio.Future` takes a turn of the loop to call, and a task one more:
    on a request's path these turns are most of what a loop costs. It may also be awaited.
    """

    __slots__ = ("_call", "_value")

    def __init__(self) -> None:
        self._value: Any = _NOT_YET
        self._call: Callable[[Any], None] | None = None

    @classmethod
    def of(cls, awaitable: Awaitable[T]) -> Pending[T]:
        """What an awaitable will give, run as a task."""
        pending = cls()

        def ended(task: asyncio.Future[T]) -> None:
            if not task.cancelled():
                pending.give(cast(Exception, task.exception()) or task.result())

        asyncio.ensure_future(awaitable).add_done_callback(ended)
        return pending

    @property
    def done(self) -> bool:
        """Whether it has come."""
        return self._value is not _NOT_YET

    def give(self, value: T | Exception) -> None:
        """It has come."""
        self._value = value
        if self._call is not None:
            self._call(value)

    def when(self, call: Callable[[T | Exception], None]) -> None:
        """Have ``call`` called with it, or with its error; one can wait for it."""
        self._call = call
        if self._value is not _NOT_YET:
            call(self._value)

    def then(self, make: Callable[[T], R]) -> Pending[R]:
        """What ``make`` will make of it; an error stays as it is, and one that ``make`` raises comes in its place."""
        made: Pending[R] = Pending()

        def come(value: T | Exception) -> None:
            if isinstance(value, Exception):
                made.give(value)
                return
            try:
                result: R | Exception = make(value)
            except Exception as error:
                result = error
            made.give(result)

        self.when(come)
        return made

    def __await__(self) -> Generator[Any, None, T]:
        if self._value is _NOT_YET:
            future = asyncio.get_running_loop().create_future()
            self.when(lambda _: None if future.done() else future.set_result(None))
            yield from future
        if isinstance(self._value, Exception):
            raise self._value
        return cast(T, self._value)
