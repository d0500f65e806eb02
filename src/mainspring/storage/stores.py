"""Which store, which log and which blobs an address names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from mainspring.errors import StorageError, did_you_mean
from mainspring.storage.blobs import Blobs, FolderBlobs
from mainspring.storage.key_value import KeyValue
from mainspring.storage.log import Log
from mainspring.storage.sharded import ShardedKeyValue, check_unsharded

_REDIS = ("redis", "rediss", "unix")
_SHARDS = re.compile(r"[?&]shards=(\d+)")


def open_key_value(url: str, *, read_timeout_us: int | None = None) -> KeyValue:
    """The store at ``lmdb:FOLDER`` or ``redis://HOST:PORT/DATABASE#NAMESPACE``; ``read_timeout_us`` bounds a read from a server.

    With ``?shards=N`` after the folder or the database it is N stores that are read as one: the stream's workers write one each.

    Raises:
        StorageError: another scheme, the store cannot be opened, or was made with another number of shards.
        MissingExtraError: the store's package is not installed.
    """
    plain, shards = split_shards(url)
    opener = _opener(plain, read_timeout_us)
    if shards == 1:
        return check_unsharded(opener(0), plain)
    return ShardedKeyValue([opener(number) for number in range(shards)], plain)


def open_log(url: str) -> Log:
    """The event log at a folder, ``redis://HOST:PORT/DATABASE#STREAM`` or ``kafka://HOST:PORT[,HOST:PORT]/TOPIC``.

    A folder may have ``file:`` before it; settings of librdkafka follow a topic as a query: ``?security.protocol=SSL``.

    Raises:
        StorageError: another scheme, or the log cannot be opened.
        MissingExtraError: the log's package is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme in _REDIS and parts.fragment:
        from mainspring.storage.adapters.redis_streams import RedisStreamLog

        return RedisStreamLog(url.split("#", maxsplit=1)[0], stream=parts.fragment)
    if parts.scheme == "kafka" and parts.path.strip("/"):
        from mainspring.storage.adapters.kafka import KafkaLog

        return KafkaLog(parts.netloc, topic=parts.path.strip("/"), settings=dict(parse_qsl(parts.query)))
    if parts.scheme not in ("", "file"):
        raise StorageError(
            f"Event log {url!r}: the address is none of a log. Use a folder, redis://HOST:PORT/DATABASE#STREAM or kafka://HOST:PORT/TOPIC."
        )
    from mainspring.storage.event_log import EventLog

    return EventLog(Path(url.removeprefix("file:")))


def open_blobs(url: str) -> Blobs:
    """The blobs in a folder, which may have ``file:`` before it, or at ``s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=REGION``.

    Raises:
        StorageError: another scheme or setting, or no bucket.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return FolderBlobs(Path(url.removeprefix("file:")))
    if parts.scheme != "s3" or not parts.netloc:
        raise StorageError(f"Blob store {url!r}: the address is none of blobs. Use a folder or s3://BUCKET/PREFIX.")
    from mainspring.storage.adapters.s3 import S3Blobs

    settings = dict(parse_qsl(parts.query))
    for name in settings.keys() - {"endpoint", "region"}:
        raise StorageError(f"Blob store {url!r}: there is no setting '{name}'.{did_you_mean(name, ('endpoint', 'region'))}")
    return S3Blobs(parts.netloc, parts.path.strip("/"), **settings)


def split_shards(url: str) -> tuple[str, int]:
    """The address of a store without ``?shards=N``, and N; 1 where it says nothing.

    Raises:
        StorageError: N is 0.
    """
    match = _SHARDS.search(url)
    if match is None:
        return url, 1
    if int(match[1]) == 0:
        raise StorageError(f"Online store {url!r}: a store has at least one shard. Write shards=1 or more.")
    return url[: match.start()] + url[match.end() :], int(match[1])


def with_shards(url: str, shards: int) -> str:
    """The address of the same store in ``shards`` shards."""
    plain, _ = split_shards(url)
    before, mark, namespace = plain.partition("#")
    return plain if shards == 1 else f"{before}{'&' if '?' in before else '?'}shards={shards}{mark}{namespace}"


def _opener(url: str, read_timeout_us: int | None) -> Callable[[int], KeyValue]:
    """What opens the shard of a number; the first one lies where an undivided store would."""
    parts = urlsplit(url)
    if parts.scheme == "lmdb":
        from mainspring.storage.adapters.lmdb import LmdbKeyValue

        folder = Path(url.removeprefix("lmdb:"))
        return lambda number: LmdbKeyValue(folder / f"shard-{number}" if number else folder)
    if parts.scheme not in _REDIS:
        raise StorageError(f"Online store {url!r}: the scheme is not known. Use lmdb:FOLDER or redis://HOST:PORT/DATABASE#NAMESPACE.")
    from mainspring.storage.adapters.redis import RedisKeyValue

    server, name = url.split("#", maxsplit=1)[0], parts.fragment or "mainspring"
    return lambda number: RedisKeyValue(server, namespace=f"{name}/shard-{number}" if number else name, read_timeout_us=read_timeout_us)
