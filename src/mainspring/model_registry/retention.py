"""Which artifacts may go."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mainspring.model_registry.records import Version

PRUNE = "prune"


def droppable(versions: Sequence[Version], used: Collection[str | None], keep: int) -> list[Version]:
    """Of ``versions`` by number those with artifacts that are not ``used`` (ids) and not among the last ``keep``."""
    return [version for version in versions[:-keep] if version.artifacts and version.id not in used]


def orphans(versions: Sequence[Version], pruned: Collection[str]) -> set[str]:
    """The hashes that only ``pruned`` versions (ids) have."""
    kept = {digest for version in versions if version.id not in pruned for digest in version.artifacts.values()}
    return {digest for version in versions if version.id in pruned for digest in version.artifacts.values()} - kept
