"""The seam between derived state and the store that holds it: bytes under bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

LONGEST_KEY = 511


class KeyValueTransaction(Protocol):
    """Reads and writes that become visible together."""

    def get(self, key: bytes) -> bytes | None:
        """The value, as this transaction left it; None if there is none."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys, as `get` gives them, in as few round trips as the store allows."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value, new or not."""
        ...

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Set the value of each key."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove the key; one that is not there changes nothing."""
        ...


class KeyValue(Protocol):
    """A store of derived state, shared by threads and processes. Keys are 1 to 511 bytes and ordered as bytes.

    Every method raises `StorageError` for a key of another length, or when the store fails.
    """

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none, all from one consistent state."""
        ...

    def transaction(self) -> AbstractContextManager[KeyValueTransaction]:
        """A transaction that commits at the end of its ``with`` block, or changes nothing if the block raises.

        There is one at a time; others wait. One inside another in the same thread would wait for ever.
        """
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix`` and their values, in the order of the keys, as they were at the first step."""
        ...

    def vacuum(self) -> bool:
        """Leave nothing of what was deleted in the store's files; False where that must wait until others have closed it."""
        ...

    def close(self) -> None:
        """Let go of the store; nothing may be called after it."""
        ...
