"""Why a request is turned away at the door, before any work is done for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Refusal:
    """Status, a word for the metrics, a sentence for the client, and headers that say what to do next."""

    status: int
    reason: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
