"""One request on its way through the door, and what its route asks of whoever sends it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mainspring.gateway.access import Client
from mainspring.gateway.front import Request
from mainspring.gateway.identity import Identity
from mainspring.serving.answer import Mark

_OPEN_PATHS = ("healthz", "readyz")
_NOBODY = Client("", frozenset())


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of its client: a verb on a system; no verb where everybody may. ``guarded`` routes have limits."""

    system: str
    verb: str
    guarded: bool = False


@lru_cache(maxsize=1024)
def rule_of(method: str, path: str) -> Rule:
    """The rule of a route, by its path: health is open, what is not known is described to those who may read descriptions."""
    parts = path.split("/")
    if parts[1] in _OPEN_PATHS:
        return Rule("", "")
    if path == "/metrics":
        return Rule("", "metrics")
    if parts[1:4] == ["v2", "repository", "models"] and len(parts) > 4:
        return Rule(parts[4], "admin")
    if parts[1:3] == ["v2", "models"] and len(parts) > 3:
        return Rule(parts[3], "answer", guarded=True) if method == "POST" else Rule(parts[3], "describe")
    if parts[1:2] != ["v1"] or len(parts) < 3:
        return Rule("", "describe")
    if method != "POST":
        return Rule(parts[2], "describe")
    return Rule(parts[2], "events" if parts[3:4] in (["events"], ["predictions"]) else "answer", guarded=True)


class Visit:
    """One request on its way through the door; ``deadline`` in seconds of the door's timer, infinite where it brought none."""

    __slots__ = ("admitted", "client", "deadline", "headers", "identity", "marks", "may_explain", "method", "route", "rule", "started")

    def __init__(self, identity: Identity, rule: Rule, method: str, route: str, headers: Mapping[bytes, bytes], started: float) -> None:
        self.identity = identity
        self.rule = rule
        self.method = method
        self.route = route
        self.headers = headers
        self.started = started
        self.client = _NOBODY
        self.admitted = False
        self.may_explain = True
        self.deadline = math.inf
        self.marks: list[Mark] | None = None

    def request(self, query: bytes = b"", body: bytes = b"", open_part: str = "") -> Request:
        """What a handler gets to see of it; ``open_part`` as in `Request`."""
        arrived, deadline = int(self.started * 1e9), self.deadline * 1e9
        return Request(self.identity.request_id, self.headers, query, body, arrived, deadline, self.may_explain, self.marks, open_part)
