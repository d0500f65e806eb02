"""One request on its way through the door."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mainspring.gateway.door.access import Client
from mainspring.gateway.door.identity import Identity
from mainspring.gateway.front import Request
from mainspring.gateway.routes import Rule
from mainspring.serving.answer import Mark

_NOBODY = Client("", frozenset())


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
