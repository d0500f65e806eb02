"""What a caller asks, and what comes back."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import msgspec

from mainspring.spec import System


class Mark(NamedTuple):
    """The end of a phase of a batch: what it was, when it ended (``time.perf_counter_ns``), how many rows were in it."""

    phase: str
    at_ns: int
    rows: int


class Ask(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One request row that holds to the contract: ``row`` has the request's columns, derived ones included.

    ``arrived_ns`` is the reading of ``time.perf_counter_ns`` when the request was there, ``deadline_ns`` that by which the answer has to
    be. Where there are ``marks``, the start of the batch and the end of each of its phases are added to them.
    """

    request_id: str
    row: Mapping[str, Any]
    explain: bool
    arrived_ns: int
    deadline_ns: int
    marks: list[Mark] | None = None
    _unanswered: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Whether the caller is the first to answer this: only what claims it may log an answer and give it."""
        return self._unanswered.acquire(blocking=False)


class Interval(msgspec.Struct, frozen=True, gc=False):
    """Predictive interval between two quantiles, in the label's unit."""

    low: float
    high: float
    quantiles: tuple[float, float]


class Reason(msgspec.Struct, frozen=True, gc=False):
    """A feature that moved the answer: its value, or of free text the word, and by how much it moved it, in the label's unit."""

    feature: str
    value: Any
    effect: float


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One answer. ``answered_by`` is model, previous, or the name of the rule; ``variant`` champion or challenger, or asked.

    ``because`` says why the model that was due did not answer. ``flags`` maps a feature to its status where that is
    unknown_key, expired or unavailable. In JSON the prediction has the name of the label: see `answer_type`.
    """

    request_id: str
    system: str
    prediction: float
    answered_by: str
    version: str
    variant: str
    interval: Interval | None = None
    because: str | None = None
    reasons: tuple[Reason, ...] = ()
    flags: dict[str, str] | None = None


def answer_type(system: System) -> type[Answer]:
    """`Answer` with the prediction under the label's name in JSON: ``{"request_id": ..., "minutes": 312.4, ...}``."""
    fields = [
        (field.name, field.type, msgspec.field(default=field.default)) if not field.required else (field.name, field.type)
        for field in msgspec.structs.fields(Answer)
    ]
    renamed = msgspec.defstruct("Answer", fields, frozen=True, omit_defaults=True, gc=False, rename={"prediction": system.label.column})
    return cast("type[Answer]", renamed)
