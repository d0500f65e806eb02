"""One key-value store out of several, each with a writer of its own: a key lies in the shard that its bytes say."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from mainspring.errors import StorageError
from mainspring.storage.key_value import KeyValue, KeyValueTransaction

PREFIX_BYTES = 8
"""What stands before the part of a key that says its shard: rows of several views with one key lie together."""
_COUNT = b"\x00shards"


def shard_of(part: bytes, shards: int) -> int:
    """The number of the shard for a key, given without its first `PREFIX_BYTES`."""
    return zlib.crc32(part) % shards


class ShardedKeyValue:
    """``shards`` read as one store; a key lies in shard ``crc32(key[8:]) % n``.

    The number of shards is kept in the first of them, under a key of its own (``\\x00shards``), and another number is refused.
    `get_many` and `scan` give each shard as one consistent state, not all of them as one. A transaction holds keys of one
    shard, which its first key chooses.

    Args:
        shards: the stores, in order; they belong to this object, which closes them.
        place: their address, for messages.

    Raises:
        StorageError: the store was made with another number of shards.
    """

    def __init__(self, shards: Sequence[KeyValue], place: str) -> None:
        self.shards = tuple(shards)
        self._place = place
        held = _keep_count(self.shards[0], len(shards))
        if held != len(shards):
            self.close()
            raise _another_number(place, held, len(shards))

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none.

        Raises:
            StorageError: a key is not 1 to 511 bytes long, or a shard fails.
        """
        wanted: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            wanted.setdefault(self._shard(key), []).append(place)
        values: list[bytes | None] = [None] * len(keys)
        for number, places in wanted.items():
            for place, value in zip(places, self.shards[number].get_many([keys[place] for place in places]), strict=True):
                values[place] = value
        return values

    @contextmanager
    def transaction(self) -> Iterator[KeyValueTransaction]:
        """A transaction on the shard of its first key.

        Raises:
            StorageError: a key lies in another shard than the first, or the shard fails.
        """
        with ExitStack() as stack:
            yield _Transaction(self, stack)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix`` and their values, in the order of the keys, each shard as it was at the first step."""
        merged = heapq.merge(*(shard.scan(prefix) for shard in self.shards))
        return ((key, value) for key, value in merged if key != _COUNT)

    def vacuum(self) -> bool:
        """Leave nothing of what was deleted in any shard's files; False where one must wait until others have closed it."""
        clean = [shard.vacuum() for shard in self.shards]
        return all(clean)

    def close(self) -> None:
        """Let go of every shard."""
        for shard in self.shards:
            shard.close()

    def _shard(self, key: bytes) -> int:
        return shard_of(key[PREFIX_BYTES:], len(self.shards))

    def _refused(self, key: bytes) -> StorageError:
        return StorageError(
            f"Key-value store {self._place}: key {key[:40]!r} lies in another shard. Write each shard in its own transaction."
        )


class _Transaction:
    def __init__(self, store: ShardedKeyValue, stack: ExitStack) -> None:
        self._store = store
        self._stack = stack
        self._number: int | None = None
        self._opened: KeyValueTransaction | None = None

    def get(self, key: bytes) -> bytes | None:
        return self._at([key]).get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._at(keys).get_many(keys) if keys else []

    def put(self, key: bytes, value: bytes) -> None:
        self._at([key]).put(key, value)

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        if keys:
            self._at(keys).put_many(keys, values)

    def delete(self, key: bytes) -> None:
        self._at([key]).delete(key)

    def _at(self, keys: Sequence[bytes]) -> KeyValueTransaction:
        numbers = [self._store._shard(key) for key in keys]
        if self._opened is None:
            self._number = numbers[0]
            self._opened = self._stack.enter_context(self._store.shards[numbers[0]].transaction())
        for key, number in zip(keys, numbers, strict=True):
            if number != self._number:
                raise self._store._refused(key)
        return self._opened


def check_unsharded(store: KeyValue, place: str) -> KeyValue:
    """``store``, known to be no shard of several.

    Raises:
        StorageError: it is the first of several; it was closed.
    """
    held = int(store.get_many([_COUNT])[0] or 1)
    if held != 1:
        store.close()
        raise _another_number(place, held, 1)
    return store


def _keep_count(store: KeyValue, shards: int) -> int:
    """The number of shards that ``store`` was made with, which is ``shards`` if it is new."""
    held = store.get_many([_COUNT])[0]
    if held is not None:
        return int(held)
    with store.transaction() as transaction:
        held = transaction.get(_COUNT)
        if held is None and next(store.scan(b""), None) is None:
            held = str(shards).encode()
            transaction.put(_COUNT, held)
    return int(held or 1)


def _another_number(place: str, held: int, asked: int) -> StorageError:
    return StorageError(
        f"Online store {place}: it was made with {held} shard{'s' * (held > 1)}, not {asked}. Open it with shards={held}, "
        "or remove it and rebuild it from the event log."
    )
