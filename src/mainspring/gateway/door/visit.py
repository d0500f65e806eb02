"""One request on its way through the door."""

from __future__ import annotations

import math

from mainspring.gateway.door.access import Client
from mainspring.gateway.door.identity import Identity
from mainspring.gateway.front import Request
from mainspring.gateway.http import Head
from mainspring.gateway.routes import Rule
from mainspring.serving.answer import Mark

_NOBODY = Client("", frozenset())


class Visit:
    """One request on its way through the door; ``deadline`` in seconds of the door's timer, infinite where it brought none."""

    __slots__ = ("admitted", "client", "deadline", "head", "identity", "marks", "may_explain", "route", "rule", "started")

    def __init__(self, identity: Identity, rule: Rule, head: Head, route: str, started: float) -> None:
        self.identity = identity
        self.rule = rule
        self.head = head
        self.route = route
        self.started = started
        self.client = _NOBODY
        self.admitted = False
        self.may_explain = True
        self.deadline = math.inf
        self.marks: list[Mark] | None = None

    def request(self, query: bytes = b"", body: bytes = b"", open_part: str = "") -> Request:
        """What a handler gets to see of it; ``open_part`` as in `Request`."""
        arrived, deadline = int(self.started * 1e9), self.deadline * 1e9
        return Request(self.identity.request_id, self.head.headers, query, body, arrived, deadline, self.may_explain, self.marks, open_part)
