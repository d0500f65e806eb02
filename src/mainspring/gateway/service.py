"""What the gateway needs of the system behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from mainspring.spec import System
from mainspring.spec.aggregate import Value


class Service(Protocol):
    """A system that answers; its methods are called one at a time, in the server's thread."""

    @property
    def system(self) -> System:
        """The declaration."""
        ...

    def answer(self, row: Mapping[str, Value], *, request_id: str, explain: bool) -> msgspec.Struct:
        """Answer a request row that holds to the contract of ``system.request``, derived columns included.

        The struct is sent as JSON as it is; its ``answered_by`` and ``version``, where it has them, are counted.

        Raises:
            RequestError: a required key was never seen.
            ServingError: nothing could answer.
        """
        ...

    def ingest(self, source: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Take in facts of a source as they came, unchecked; what was accepted and rejected, ready for JSON."""
        ...

    def take(self, rows: list[Any]) -> dict[str, Any]:
        """Take in answers that devices gave, each once by its id; what was taken, known and rejected, ready for JSON.

        Raises:
            RequestError: a row is no such answer.
        """
        ...

    def ready(self) -> str | None:
        """None when it can answer, else what is missing."""
        ...

    def metadata(self) -> dict[str, Any]:
        """What answers now, ready for JSON: live versions, stage of the rollout."""
        ...
