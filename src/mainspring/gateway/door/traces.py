"""Which requests are traced, and what a trace tells of one; the span of a request is the one that its identity names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import structs

from mainspring.gateway.door.identity import Identity
from mainspring.gateway.http import Reply
from mainspring.serving.answer import Mark

_TRACE_BITS = 64


class Finished(NamedTuple):
    """A request that has its answer. ``began`` and ``ended`` are nanoseconds of ``time.perf_counter_ns``, as those of the marks."""

    identity: Identity
    method: str
    route: str
    system: str
    client: str
    reply: Reply
    began: int
    ended: int
    marks: Sequence[Mark]


class Tracer(Protocol):
    """Where spans go."""

    ratio: float

    def record(self, finished: Finished, now: int) -> None:
        """Send the spans of a request on, sometime; ``now`` is the instant (microseconds) of ``finished.ended``."""
        ...

    def close(self) -> None:
        """Send what waits."""
        ...


def sampled(identity: Identity, ratio: float) -> Identity:
    """The identity with the sampled flag: the caller's decision where it has a span, else the share ``ratio`` of the traces by their ids.

    The lowest 64 bits decide, as in the samplers of OpenTelemetry, so that servers agree without asking each other.
    """
    if identity.parent or int(identity.trace_id[16:], 16) >= round(ratio * 2**_TRACE_BITS):
        return identity
    return structs.replace(identity, flags="01")
