"""Keys of rows as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

_LONGEST_KEY = 400
_HASHED = b"\xc1"
"""No MessagePack begins with it."""
_encode = msgspec.msgpack.Encoder().encode


def pack_key(values: Sequence[Any]) -> bytes:
    """A key's values as bytes that every store takes as a key: those over 400 bytes by their BLAKE2b."""
    return _short(_encode(values))


def pack_keys(keys: Iterable[Sequence[Any]]) -> list[bytes]:
    """What `pack_key` gives for each."""
    packed = list(map(_encode, keys))
    if max(map(len, packed), default=0) <= _LONGEST_KEY:
        return packed
    return list(map(_short, packed))


def unpack_key(key: bytes) -> list[Any] | None:
    """The values that `pack_key` packed; None where it hashed them."""
    values: list[Any] | None = None if key.startswith(_HASHED) else msgspec.msgpack.decode(key)
    return values


def _short(key: bytes) -> bytes:
    return key if len(key) <= _LONGEST_KEY else _HASHED + hashlib.blake2b(key, digest_size=32).digest()
