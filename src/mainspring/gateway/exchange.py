"""One request on its way through the application: from its head, and then its body, to its one answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from mainspring.errors import did_you_mean
from mainspring.gateway.door.door import Door
from mainspring.gateway.door.visit import Visit
from mainspring.gateway.front import Handler
from mainspring.gateway.http import Head, Headers, Reply, declared, error_reply, too_large
from mainspring.serving.pending import Pending

Answer = Callable[[Reply, Headers], None]
"""Takes a response, and the headers that it carries because of who asked."""

_log = logging.getLogger(__name__)
_GONE = 499
_BROKEN = Reply(500, b'{"error":{"field":null,"message":"The request failed for a reason of ours.","request_id":null}}')


class Application(Protocol):
    """What an exchange needs to know."""

    @property
    def door(self) -> Door:
        """Who lets it in."""
        ...

    @property
    def routes(self) -> Mapping[str, Mapping[str, Handler]]:
        """Handlers by path and method."""
        ...

    def route(self, path: str) -> tuple[str, str]:
        """The route of a path, and what stands in the part that the route leaves open."""
        ...

    def refuse(self, error: Exception, visit: Visit) -> Reply:
        """The answer to a request that failed."""
        ...


class Exchange:
    """Begins when the head of a request is there; ``whole`` follows with the body, or else ``fail`` or ``leave``.

    ``answer`` is called once, as soon as there is an answer, which may be before the body is there, and be it from one of these calls;
    not after ``leave``.
    """

    __slots__ = ("_answer", "_app", "_body", "_handler", "_head", "_left", "_open_part", "_visit", "done")

    def __init__(self, app: Application, head: Head, answer: Answer) -> None:
        route, self._open_part = app.route(head.path)
        methods = app.routes.get(route)
        self._app, self._head, self._answer = app, head, answer
        self._visit = app.door.enter(head, None if methods is None else route)
        self._handler: Handler | None = None
        self._body: bytes | None = None
        self._left = self.done = False
        try:
            checked = app.door.check(self._visit)
        except Exception as error:
            self.fail(error)
            return
        if isinstance(checked, Pending):
            checked.when(self._checked)
        else:
            self._checked(checked)

    @property
    def limit(self) -> int:
        """The most bytes that the body may have."""
        return self._app.door.body_limit(self._visit.route)

    def whole(self, body: bytes) -> None:
        """The body is there."""
        self._body = body
        if self._handler is not None:
            self._handle(self._handler, body)

    def fail(self, error: Exception) -> None:
        """Answer that it failed."""
        if not self.done:
            self._end(self._app.refuse(error, self._visit))

    def leave(self) -> None:
        """The client has left; without a whole request there is nothing to do."""
        if self._body is None and not self.done:
            self._left = True
            if self._handler is not None:
                self._end(Reply(_GONE, b""))

    def _checked(self, turned_away: Reply | Exception | None) -> None:
        """The door has let it in, or not."""
        if self._left:
            self._end(Reply(_GONE, b""))
        elif isinstance(turned_away, Exception):
            self.fail(turned_away)
        else:
            self._let_in(turned_away or self._nowhere())

    def _let_in(self, turned_away: Reply | None) -> None:
        if turned_away is not None:
            self._end(turned_away)
            return
        if self._head.method == "POST" and declared(self._head.headers) > self.limit:
            self.fail(too_large(self.limit))
            return
        self._handler = self._app.routes[self._visit.route][self._head.method]
        if self._body is not None:
            self._handle(self._handler, self._body)

    def _nowhere(self) -> Reply | None:
        """The answer to a request that nothing handles."""
        head, request_id, routes = self._head, self._visit.identity.request_id, self._app.routes
        methods = routes.get(self._visit.route)
        if methods is None:
            path = head.path[:100]
            return error_reply(404, f"There is nothing at {_printable(path)}.{did_you_mean(path, routes)}", request_id)
        if head.method in methods:
            return None
        allowed = ", ".join(methods)
        return error_reply(405, f"{head.method} is not possible here. Use {allowed}.", request_id, headers={"allow": allowed})

    def _handle(self, handler: Handler, body: bytes) -> None:
        if self.done:
            return
        began = time.perf_counter()
        try:
            reply = handler(self._visit.request(self._head.query, body if self._head.method == "POST" else b"", self._open_part))
        except Exception as error:
            self.fail(error)
            return
        if isinstance(reply, Reply):
            self._app.door.wire.handled(began, time.perf_counter())
            self._end(reply)
        elif isinstance(reply, Pending):
            reply.when(self._handled)
        else:
            Pending.of(reply).when(self._handled)

    def _handled(self, reply: Reply | Exception) -> None:
        if isinstance(reply, Reply):
            self._end(reply)
        else:
            self.fail(reply)

    def _end(self, reply: Reply) -> None:
        """Count it and answer; what goes wrong here must not reach others whose answers come in the same batch."""
        self.done = True
        try:
            more = self._app.door.leave(self._visit, reply)
        except Exception:
            _log.exception("Request %s was not counted", self._visit.identity.request_id)
            reply, more = _BROKEN, []
        if not self._left:
            self._answer(reply, more)


def _printable(text: str) -> str:
    return text.encode("ascii", errors="backslashreplace").decode()
