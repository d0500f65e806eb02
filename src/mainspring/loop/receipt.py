"""Receipts of erasures: what was asked, what went, what is left, and what was found when everything was looked through again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mainspring.clock import Clock, format_instant
from mainspring.errors import StorageError
from mainspring.storage.durable import make_directory, replacing

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Place:
    """One place: how many rows went, and how many were still found at the end."""

    name: str
    removed: int
    left: int


@dataclass(frozen=True, slots=True)
class Begun:
    """An erasure under way: what was counted before the first row went, and the first and last event time of what goes."""

    id: str
    system: str
    column: str
    salt: str
    value: str
    at: int
    counts: Mapping[str, int]
    span: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did. ``value`` is the SHA-256 of ``salt`` and the value: who knows the value can tell that it is meant.

    ``models`` were trained on what is gone and still stand: retrain. ``hash`` is the SHA-256 of all the rest as canonical JSON.
    """

    path: Path
    body: Mapping[str, Any]
    places: tuple[Place, ...]
    hash: str

    @property
    def complete(self) -> bool:
        """Whether nothing is left."""
        return all(place.left == 0 for place in self.places)

    @property
    def models(self) -> list[dict[str, Any]]:
        """Models that were trained on what is gone."""
        found: list[dict[str, Any]] = self.body["models"]
        return found


def begin(
    folder: Path,
    system: str,
    column: str,
    text: str,
    count: Callable[[], Mapping[str, int]],
    span: Callable[[], tuple[int, int] | None],
    clock: Clock,
) -> Begun:
    """The erasure of this value that was begun and not finished, or a new one, written down before anything goes."""
    make_directory(folder)
    for file in sorted(folder.glob("*.begun")):
        held = _read(file)
        if (held.system, held.column, held.value) == (system, column, hashed(held.salt, text)):
            return held
    salt, at = os.urandom(16).hex(), clock.now()
    value = hashed(salt, text)
    begun = Begun(f"{format_instant(at)[:10]}-{value[:12]}", system, column, salt, value, at, dict(count()), span())
    _write(folder / f"{begun.id}.begun", asdict(begun))
    return begun


def finish(folder: Path, begun: Begun, places: tuple[Place, ...], models: tuple[dict[str, Any], ...], clock: Clock) -> Receipt:
    """Write the receipt; an erasure of which something is left stays begun."""
    body = {
        "format": FORMAT,
        "system": begun.system,
        "column": begun.column,
        "salt": begun.salt,
        "value": begun.value,
        "begun_at": format_instant(begun.at),
        "at": format_instant(clock.now()),
        "places": [asdict(place) for place in places],
        "models": list(models),
    }
    receipt = Receipt(folder / f"{begun.id}.json", body, places, receipt_hash(body))
    _write(receipt.path, {**body, "complete": receipt.complete, "hash": receipt.hash})
    if receipt.complete:
        (folder / f"{begun.id}.begun").unlink(missing_ok=True)
    return receipt


def hashed(salt: str, text: str) -> str:
    """What stands for a value in its receipt."""
    return hashlib.sha256(f"{salt}:{text}".encode()).hexdigest()


def receipt_hash(body: Mapping[str, Any]) -> str:
    """The hash of a receipt's contents but ``complete`` and ``hash``."""
    plain = {name: value for name, value in body.items() if name not in ("complete", "hash")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _read(file: Path) -> Begun:
    try:
        body = json.loads(file.read_text())
        return Begun(**{**body, "span": None if body["span"] is None else tuple(body["span"])})
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"Receipt {file}: cannot be read ({error}). Remove it, and erase again.") from error


def _write(path: Path, body: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(body, indent=1).encode())
