"""The seam between the registry and the database that holds its rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

Execute = Callable[..., list[tuple[Any, ...]]]


class Database(Protocol):
    """Two tables of rows that can be added but neither changed nor deleted: the database itself refuses it.

    ``versions``: seq, kind, name, number, at, manifest, artifacts, signature. ``decisions``: seq, at, system, action, version, by,
    reason, evidence. Integers have 64 bits, the rest is text; ``?`` stands for a value in a query. Shared by threads.
    Every method raises `RegistryError` when the database fails.
    """

    @property
    def place(self) -> str:
        """Where it is, for messages; without a password."""
        ...

    def read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows that a query gives; inside `writing`, by the same thread, as the transaction left them."""
        ...

    def writing(self) -> AbstractContextManager[Execute]:
        """A transaction that is alone among all writers, and durable when its ``with`` block ends; if that raises, nothing was written."""
        ...

    def token(self) -> int:
        """A number that changes soon after this or another process has written, cheap enough to ask at every request."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...
