"""What a request is called: its id, and its place in a trace (W3C Trace Context, level 1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from msgspec import Struct

_SAFE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_TRACE_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MEMBER = re.compile(rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_MOST_MEMBERS, _LONGEST_STATE = 32, 512


class Identity(Struct, frozen=True):
    """A request's id, and the trace that it is part of; ``parent`` is the caller's span, empty for a trace begun here."""

    request_id: str
    trace_id: str
    span_id: str
    parent: str = ""
    flags: str = "00"
    state: str = ""

    @property
    def traceparent(self) -> str:
        """What goes on to whoever is asked next."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def identify(headers: Mapping[bytes, bytes], new_id: Callable[[], str]) -> Identity:
    """The identity that the headers give; what they leave out or give wrongly is made anew.

    ``new_id`` gives 32 random hexadecimal digits. A request that brings no id of its own is called by its trace.
    """
    given = headers.get(b"x-request-id")
    parent = headers.get(b"traceparent")
    found = None if parent is None else _TRACE_PARENT.fullmatch(parent)
    fresh = new_id()
    request_id = given.decode() if given is not None and _SAFE_ID.fullmatch(given) else fresh
    if found is None or (found[1] == b"00" and found[5]):
        return Identity(request_id, fresh, fresh[:16])
    state = headers.get(b"tracestate", b"")
    kept = state.decode() if state and _holds(state) else ""
    return Identity(request_id, found[2].decode(), fresh[:16], found[3].decode(), "01" if int(found[4], 16) & 1 else "00", kept)


def _holds(state: bytes) -> bool:
    members = [member.strip(b" \t") for member in state.split(b",")]
    named = [member for member in members if member]
    keys = {member.partition(b"=")[0] for member in named}
    return (
        len(state) <= _LONGEST_STATE
        and len(named) <= _MOST_MEMBERS
        and len(keys) == len(named)
        and all(_MEMBER.fullmatch(member) for member in named)
    )
