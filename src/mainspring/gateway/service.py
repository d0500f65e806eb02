"""What the gateway needs of the system behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mainspring.errors import MainspringError
from mainspring.serving.answer import Ask
from mainspring.serving.health import Health
from mainspring.spec import System


class AskedVersion(Protocol):
    """A version that is asked for by number; its methods are those of `Service`, by that version alone."""

    @property
    def size(self) -> int:
        """Bytes that it is taken to need in memory."""
        ...

    def answer_many(self, asks: Sequence[Ask]) -> Sequence[msgspec.Struct | MainspringError]:
        """Answer request rows."""
        ...

    def answer_late(self, asks: Sequence[Ask]) -> Sequence[msgspec.Struct | MainspringError]:
        """Answer at once what it cannot answer by its deadline."""
        ...


class Service(Protocol):
    """A system that answers; its methods are called one at a time, but where they say otherwise."""

    @property
    def system(self) -> System:
        """The declaration."""
        ...

    def answer_many(self, asks: Sequence[Ask], *, shadow: bool = True) -> Sequence[msgspec.Struct | MainspringError]:
        """Answer request rows, or say why not, each by itself.

        A struct is sent as JSON as it is; its ``answered_by`` and ``version``, where it has them, are counted. An error is a
        `RequestError` where a required key was never seen, a `ServingError` where nothing could answer. Without ``shadow`` a
        version that does not answer scores nothing.
        """
        ...

    def answer_late(self, asks: Sequence[Ask]) -> Sequence[msgspec.Struct | MainspringError]:
        """Answer at once, without a model, what no model can answer by its deadline; may be called while `answer_many` runs."""
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

    def load(self, version: int, most: int) -> AskedVersion:
        """A version by its number, of at most so many bytes; takes its time, and may be called in any thread.

        Raises:
            RequestError: there is none, it cannot be loaded, or needs more.
        """
        ...

    def counts(self) -> Mapping[str, float]:
        """What it has counted since it began, by the names of `mainspring.gateway.metrics.OF_SYSTEMS`."""
        ...

    def ready(self) -> str | None:
        """None when it can answer, else what is missing."""
        ...

    def health(self) -> Health:
        """What it left out because it failed or for want of time."""
        ...

    def metadata(self) -> dict[str, Any]:
        """What answers now, ready for JSON: live versions, stage of the rollout."""
        ...
