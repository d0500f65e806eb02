"""The row format of the prediction log: a header frame with the columns as JSON, then one MessagePack frame a prediction."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from mainspring.errors import StorageError
from mainspring.schema import Field, Schema, Type
from mainspring.storage.durable import locked

ASKED = "asked"
"""The variant of what a version answered because it was asked for by number: no answer of the system's own."""
_MAGIC = b"MSP1"
_LENGTHS = struct.Struct("<III")
_ONES = 0xFFFFFFFF
_NAME = re.compile(r"(.+)-(\d{20})\.(rows|parquet)")


class Prediction(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One answer given, with all that is needed to explain, judge or repeat it. Instants are microseconds UTC.

    ``request`` holds the values of the request's columns, derived ones included, in the order of the schema; ``features`` the
    served values in the model's order, None for null; ``statuses`` one `mainspring.schema.Status` byte a feature. ``system`` is
    the hash of the declaration, ``version`` the model version that answered ("" if none), ``variant`` its part in the rollout
    (champion, challenger; edge of a device, asked where the client named the version), ``answered_by`` is model, previous or the name
    of a rule. ``low`` and ``high`` bound the score.
    """

    request_id: str
    as_of: int
    answered_at: int
    request: tuple[Any, ...]
    features: tuple[Any, ...]
    statuses: bytes
    system: str
    version: str
    variant: str
    answered_by: str
    score: float
    low: float | None
    high: float | None
    reasons: tuple[tuple[str, float], ...]
    latency_us: float
    shadow_version: str
    shadow_score: float | None


@dataclass(frozen=True, slots=True)
class PredictionColumns:
    """Names and types of what a prediction's ``request`` and ``features`` hold."""

    request: Schema
    features: Schema


@dataclass(frozen=True, slots=True)
class Rows:
    """What a row file holds: its columns (None while its header is not yet whole), encoded rows, bytes up to the last whole one."""

    columns: PredictionColumns | None
    bodies: list[memoryview]
    size: int


def encode_frames(bodies: Sequence[bytes]) -> bytes:
    """The bodies, each after its length, the length's complement (so that a damaged length shows) and a checksum."""
    pack, checksum = _LENGTHS.pack, zlib.crc32
    heads = [pack(length := len(body), length ^ _ONES, checksum(body)) for body in bodies]
    return b"".join(chain.from_iterable(zip(heads, bodies, strict=True)))


def encode_header(columns: PredictionColumns) -> bytes:
    """The first bytes of a row file."""
    names = {part: [[f.name, f.type.value, f.nullable] for f in getattr(columns, part).fields] for part in ("request", "features")}
    return _MAGIC + encode_frames([json.dumps(names).encode()])


def encoder() -> msgspec.msgpack.Encoder:
    """An encoder of predictions that also takes NumPy scalars."""
    return msgspec.msgpack.Encoder(enc_hook=lambda value: value.item())


def decode(bodies: Sequence[memoryview]) -> list[Prediction]:
    """The predictions in the bodies of frames, decoded in one call as one MessagePack array."""
    data = b"".join([struct.pack(">BI", 0xDD, len(bodies)), *bodies])
    return msgspec.msgpack.decode(data, type=list[Prediction])


def read_rows(path: Path) -> Rows:
    """The whole frames of a row file; half a frame at its end is ignored.

    Raises:
        FileNotFoundError: the file is gone, because it was compacted.
        StorageError: a frame is damaged.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC) and not _MAGIC.startswith(data) and data.strip(b"\0"):
        raise StorageError(f"Prediction log, {path}: not a row file of format {_MAGIC!r}. Read it with the version that wrote it.")
    bodies, size = _frames(path, data)
    if not bodies:
        return Rows(None, [], 0)
    names = json.loads(bytes(bodies[0]))
    request, features = (Schema(tuple(Field(n, Type(t), null) for n, t, null in names[part])) for part in ("request", "features"))
    return Rows(PredictionColumns(request, features), bodies[1:], size)


def segments(path: Path) -> dict[str, list[int]]:
    """For each worker the first sequence numbers of its segments in order, be they row files, Parquet or both for a moment."""
    found: dict[str, set[int]] = {}
    with locked(path / "lock"):  # compaction removes a row file only under it: else its Parquet file could be missed as well
        names = os.listdir(path)
    for match in filter(None, map(_NAME.fullmatch, names)):
        found.setdefault(match[1], set()).add(int(match[2]))
    return {worker: sorted(found[worker]) for worker in sorted(found)}


def segment(path: Path, worker: str, first: int, kind: str) -> Path:
    """The file of a segment; ``kind`` is rows or parquet."""
    return path / f"{worker}-{first:020d}.{kind}"


def _frames(path: Path, data: bytes) -> tuple[list[memoryview], int]:
    view, position, size, bodies = memoryview(data), len(_MAGIC), len(data), []
    while size - position >= _LENGTHS.size:
        length, complement, checksum = _LENGTHS.unpack_from(data, position)
        if length ^ complement != _ONES:
            if not data[position:].strip(b"\0"):
                break
            raise _damaged(path, position)
        end = position + _LENGTHS.size + length
        if end > size:
            break
        body = view[position + _LENGTHS.size : end]
        if zlib.crc32(body) != checksum:
            raise _damaged(path, position)
        bodies.append(body)
        position = end
    return bodies, position


def _damaged(path: Path, position: int) -> StorageError:
    return StorageError(
        f"Prediction log, {path}, byte {position}: a row does not match its checksum. Restore this file from a copy. "
        f"Without one, losing the rows from there on: run 'truncate -s {position} {path}'."
    )
