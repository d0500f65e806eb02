"""Key-value store on a server that speaks the Redis protocol: Redis, Valkey and their like."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mainspring.errors import MissingExtraError, StorageError
from mainspring.storage.key_value import LONGEST_KEY

_LOCK_SECONDS = 30
_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.002
_LOOK_SECONDS = 0.25
_FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class RedisKeyValue:
    """Derived state on a Redis server, under keys that begin with a namespace.

    Reads are one round trip. A transaction holds a lock of the namespace for at most 30 s, gathers its writes, and commits
    them in one ``MULTI`` that fails if the lock was lost meanwhile: all of it, or nothing, and one at a time. The lock of a
    process that died is freed by the next that wants it, within half a second of the server losing its connections. What survives the
    death of the server is up to its own configuration; after a loss the store is rebuilt from the event log.

    Args:
        url: ``redis://user:password@host:port/database``, ``rediss://`` with TLS, ``unix://`` for a socket.
        namespace: what every key begins with.
        read_timeout_us: how long `get_many` may wait for the server, in microseconds; everything else may wait 5 s.

    Raises:
        MissingExtraError: the package ``redis`` is not installed.
        StorageError: the address is none, or the server does not answer.
    """

    def __init__(self, url: str, *, namespace: str = "mainspring", read_timeout_us: int | None = None) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError("An online store on Redis", "redis", "redis") from error
        self._errors = redis.RedisError
        self._place = url.rsplit("@", 1)[-1]
        self._prefix = namespace.encode() + b":"
        self._lock = self._prefix + b"\x00lock"
        self._refused = redis.ResponseError
        self._client_name = f"mainspring-{os.urandom(8).hex()}"
        seconds = [_WAIT_SECONDS if read_timeout_us is None else read_timeout_us / 1e6, _WAIT_SECONDS]
        try:
            clients = [
                redis.Redis.from_url(url, socket_timeout=wait, socket_connect_timeout=wait, retry=None, client_name=self._client_name)
                for wait in seconds
            ]
            self._reader: Any = clients[0]
            self._client: Any = clients[1]
            self._client.ping()
        except (redis.RedisError, ValueError, OSError) as error:
            raise self._failed(error) from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none, all from one consistent state, in one round trip.

        Raises:
            StorageError: a key is not 1 to 511 bytes long, or the server fails or does not answer in time.
        """
        return self._get_many(self._reader, keys)

    def _get_many(self, client: Any, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        names = [self._name(key) for key in keys]
        try:
            values: list[bytes | None] = client.execute_command("MGET", *names)
        except (self._errors, OSError) as error:
            raise self._failed(error) from error
        return values

    @contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        """A transaction that commits at the end of its ``with`` block, or changes nothing if the block raises.

        Raises:
            StorageError: the server fails, or the transaction took longer than 30 s and another has begun.
        """
        token = f"{self._client_name}:{os.urandom(16).hex()}".encode()
        self._acquire(token)
        transaction = _Transaction(self)
        try:
            yield transaction
        except BaseException:
            self._commit(token, {})
            raise
        if not self._commit(token, transaction.writes):
            raise StorageError(
                f"Key-value store {self._place}: a transaction took over {_LOCK_SECONDS} s and was dropped. Make it smaller."
            )

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix`` and their values, in the order of the keys, as they were at the first step.

        Raises:
            StorageError: the prefix is over 511 bytes, or the server fails.
        """
        whole = self._name(prefix) if prefix else self._prefix
        pattern = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in whole) + b"*"
        try:
            names = sorted(name for name in self._client.scan_iter(pattern, count=10_000) if name != self._lock)
            values = self._client.execute_command("MGET", *names) if names else []
        except (self._errors, OSError) as error:
            raise self._failed(error) from error
        for name, value in zip(names, values, strict=True):
            if value is not None:
                yield name[len(self._prefix) :], value

    def vacuum(self) -> bool:
        """Always True: what was deleted is out of the server's memory; its snapshots and logs on disk are its own to rewrite."""
        return True

    def close(self) -> None:
        """Let go of the connections."""
        self._reader.close()
        self._client.close()

    def _acquire(self, token: bytes) -> None:
        look = time.monotonic() + _LOOK_SECONDS
        try:
            while not self._client.set(self._lock, token, nx=True, ex=_LOCK_SECONDS):
                time.sleep(_POLL_SECONDS)
                if time.monotonic() > look:
                    self._free_if_abandoned()
                    look = time.monotonic() + _LOOK_SECONDS
        except (self._errors, OSError) as error:
            raise self._failed(error) from error

    def _free_if_abandoned(self) -> None:
        """Free the lock if its holder has no connection to the server; one that lives after all has its commit refused."""
        with contextlib.suppress(self._refused):  # a server that does not list its clients: the lock runs out by itself
            holder = self._client.get(self._lock)
            named = {client["name"].encode() for client in self._client.client_list()}
            if holder is not None and holder.partition(b":")[0] not in named:
                self._client.eval(_FREE, 1, self._lock, holder)

    def _commit(self, token: bytes, writes: dict[bytes, bytes | None]) -> bool:
        """Write all and give the lock back; False where it was lost, and nothing written."""
        try:
            with self._client.pipeline() as pipeline:
                pipeline.watch(self._lock)
                if pipeline.get(self._lock) != token:
                    return False
                pipeline.multi()
                gone = [self._prefix + key for key, value in writes.items() if value is None]
                kept = {self._prefix + key: value for key, value in writes.items() if value is not None}
                if kept:
                    pipeline.mset(kept)
                pipeline.delete(self._lock, *gone)
                pipeline.execute()
        except self._errors as error:
            if type(error).__name__ == "WatchError":
                return False
            raise self._failed(error) from error
        return True

    def _name(self, key: bytes) -> bytes:
        if not 1 <= len(key) <= LONGEST_KEY:
            raise StorageError(f"Key-value store {self._place}: key {key[:40]!r} has {len(key)} bytes. Use 1 to {LONGEST_KEY}.")
        return self._prefix + key

    def _failed(self, error: Exception) -> StorageError:
        return StorageError(f"Key-value store {self._place}: {error}. Start the server, or mend its address.")


class _Transaction:
    def __init__(self, store: RedisKeyValue) -> None:
        self._store = store
        self.writes: dict[bytes, bytes | None] = {}

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        asked = [key for key in keys if key not in self.writes]
        held = dict(zip(asked, self._store._get_many(self._store._client, asked), strict=True))
        return [self.writes[key] if key in self.writes else held[key] for key in keys]

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def put(self, key: bytes, value: bytes) -> None:
        self._store._name(key)
        self.writes[key] = value

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.put(key, value)

    def delete(self, key: bytes) -> None:
        self._store._name(key)
        self.writes[key] = None
