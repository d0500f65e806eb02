"""Which store an address names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from mainspring.errors import StorageError
from mainspring.storage.key_value import KeyValue


def open_key_value(url: str, *, read_timeout_us: int | None = None) -> KeyValue:
    """The store at ``lmdb:FOLDER`` or ``redis://HOST:PORT/DATABASE#NAMESPACE``; ``read_timeout_us`` bounds a read from a server.

    Raises:
        StorageError: another scheme, or the store cannot be opened.
        MissingExtraError: the store's package is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == "lmdb":
        from mainspring.storage.adapters.lmdb import LmdbKeyValue

        return LmdbKeyValue(Path(url.removeprefix("lmdb:")))
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise StorageError(f"Online store {url!r}: the scheme is not known. Use lmdb:FOLDER or redis://HOST:PORT/DATABASE#NAMESPACE.")
    from mainspring.storage.adapters.redis import RedisKeyValue

    return RedisKeyValue(url.split("#", maxsplit=1)[0], namespace=parts.fragment or "mainspring", read_timeout_us=read_timeout_us)
