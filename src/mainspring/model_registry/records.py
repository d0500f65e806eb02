"""One registered thing, and the JSON in its row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.errors import RegistryError
from mainspring.model_registry.deployment import Decision

KINDS = ("system", "dataset", "model")
Row = tuple[Any, ...]

_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Version:
    """One registered thing; ``artifacts`` maps names to the SHA-256 of the bytes, ``manifest`` is JSON.

    ``signature`` is hex over all the rest, empty where the registry that it was written to had no key.
    """

    id: str
    kind: str
    name: str
    number: int
    at: int
    manifest: Mapping[str, Any]
    artifacts: Mapping[str, str]
    signature: str = ""


class Json(Mapping[str, Any]):
    """A JSON object that is decoded when it is first looked into: a list of a thousand versions seldom looks into all."""

    __slots__ = ("_text", "_value")

    def __init__(self, text: str) -> None:
        self._text = text
        self._value: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        return self._decoded()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._decoded() == dict(other)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return repr(self._decoded())

    def _decoded(self) -> dict[str, Any]:
        if self._value is None:
            self._value = _decode(self._text)
        return self._value


def version_of(row: Row) -> Version:
    """The version of a row ``kind, name, number, at, manifest, artifacts, signature``."""
    kind, name, number, at, manifest, artifacts, signature = row
    return Version(f"{kind}:{name}:{number}", kind, name, number, at, Json(manifest), _decode(artifacts), signature)


def decision_of(row: Row) -> Decision:
    """The decision of a row ``seq, at, system, action, version, by, reason, evidence``."""
    seq, at, system, action, version, by, reason, evidence = row
    return Decision(seq, at, system, action, version, by, reason, _decode(evidence))


def to_json(value: Mapping[str, Any], what: str) -> str:
    """Canonical JSON of a mapping.

    Raises:
        RegistryError: it holds what is not JSON; ``what`` names it.
    """
    plain = _plain(value)
    try:
        text = json.dumps(plain, sort_keys=True, allow_nan=False)
        if json.loads(text) != plain:
            raise TypeError("a key is not text")
    except (TypeError, ValueError) as error:
        raise RegistryError(
            f"Registry: the {what} is not JSON ({error}). Use dicts with text keys, lists, text, finite numbers, None."
        ) from error
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
