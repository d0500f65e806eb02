"""What a signature of a version covers: all that its row says, so also which bytes its artifacts have."""

from __future__ import annotations

import json
from collections.abc import Callable

from mainspring.errors import RegistryError
from mainspring.model_registry.records import Version

Sign = Callable[[bytes], bytes]
Verify = Callable[[bytes, bytes], bool]


def message(version: Version) -> bytes:
    """The signed bytes: kind, name, number, instant, manifest, and the SHA-256 of every artifact, as canonical JSON."""
    said = ["mainspring version", version.kind, version.name, version.number, version.at, dict(version.manifest), version.artifacts]
    return json.dumps(said, sort_keys=True).encode()


def check(version: Version, verify: Verify) -> None:
    """Refuse a version that was not signed with the key, or not as it is now.

    Raises:
        RegistryError: it has no signature, or another one.
    """
    if not version.signature:
        raise RegistryError(f"Version '{version.id}' is not signed. Register it again with the signing key.")
    try:
        good = verify(message(version), bytes.fromhex(version.signature))
    except ValueError:
        good = False
    if not good:
        raise RegistryError(
            f"Version '{version.id}': the signature does not fit. Its record was altered, or was signed for another version or with "
            "another key. Restore the record from a copy."
        )
