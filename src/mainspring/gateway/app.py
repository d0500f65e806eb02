"""The application: systems by their routes, and errors in one shape."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mainspring.errors import DataError, DeclarationError, RequestError, ServingError, StorageError
from mainspring.gateway import describe, inference
from mainspring.gateway.door.door import Door
from mainspring.gateway.door.visit import Visit
from mainspring.gateway.front import Front, Handler, Request
from mainspring.gateway.http import Reply, error_reply, json_reply
from mainspring.gateway.metrics import CONTENT_TYPE
from mainspring.gateway.service import Service
from mainspring.gateway.settings import Settings
from mainspring.gateway.shelf import Shelf

_log = logging.getLogger(__name__)
_RETRY_SECONDS = "1"
_STORAGE_FAILED = "A record or store failed; see the server's log. Send events again: one event id counts once."
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_REASONS = {400: "malformed", 408: "too_slow", 413: "too_large", 415: "media_type"}


class App:
    """Systems over HTTP: ``POST /v1/<system>`` answers, ``.../rows`` many rows; ``.../events/<source>`` takes in facts, and
    ``.../predictions`` answers that devices gave.

    ``GET`` of /v1/<system>, /healthz, /readyz, /readyz/<system>, /metrics, /openapi.json and /docs describes them; /v2 is the Open
    Inference Protocol. An `Exchange` takes a request through it. ``door`` lets requests in; without it everybody may come. ``fronts``
    are the systems, ``routes`` handlers by path and method. Once ``draining`` is set it is not ready any more, and answers all the same.
    """

    def __init__(self, *services: Service, door: Door | None = None) -> None:
        """Raises DeclarationError where two services have the same system."""
        self.door = door or Door(Settings())
        self._metrics = self.door.metrics
        shelf = Shelf(self.door.settings.limits.memory, self.door.wire.handled)
        self.fronts = [Front(service, self.door.wire.handled, shelf) for service in services]
        _refuse_twice([front.system.name for front in self.fronts])
        for front in self.fronts:
            self._metrics.watch(front.service, front.counts)
        self._fields = frozenset(name for front in self.fronts for name in front.system.request.schema.names)
        self.routes = self._table()
        self.draining = False

    def route(self, path: str) -> tuple[str, str]:
        """The route of a path and what stands in the part that the route leaves open, if it has one."""
        if path in self.routes:
            return path, ""
        parts = path.split("/")
        if parts[1:3] != ["v2", "models"] or len(parts) < 6:
            return path, ""
        return "/".join([*parts[:5], inference.OPEN, *parts[6:]]), parts[5]

    def refuse(self, error: Exception, visit: Visit) -> Reply:
        """The answer to a request that failed; what is not ours to tell is logged, and not told."""
        route, request_id = visit.route, visit.identity.request_id
        if isinstance(error, RequestError):
            field = error.field if error.field in self._fields else "other"
            self._metrics.reject(route, _REASONS.get(error.status, field))
            close = {"connection": "close"} if error.status in (408, 413) else None
            return error_reply(error.status, error.reason, request_id, error.field, close)
        if isinstance(error, ServingError):
            return error_reply(503, str(error), request_id, headers={"retry-after": _RETRY_SECONDS})
        if isinstance(error, StorageError):
            _log.error("Request %s to %s: %s", request_id, route, error)
            return error_reply(503, _STORAGE_FAILED, request_id, headers={"retry-after": _RETRY_SECONDS})
        if isinstance(error, DataError):
            self._metrics.reject(route, "data")
            return error_reply(422, str(error), request_id)
        _log.error("Request %s to %s failed", request_id, route, exc_info=error)
        return error_reply(500, "The request failed for a reason of ours. Report its request_id.", request_id)

    def _table(self) -> dict[str, dict[str, Handler]]:
        """Handlers by path and method; what can be described once is encoded once."""
        systems = [front.system for front in self.fronts]
        paths: dict[str, dict[str, Handler]] = {}
        for front in self.fronts:
            paths |= front.routes()
        paths |= inference.routes(self.fronts)
        paths["/healthz"] = {"GET": _constant(json_reply({"status": "ok"}))}
        paths["/readyz"] = {"GET": self._ready()}
        for front in self.fronts:
            paths[f"/readyz/{front.system.name}"] = {"GET": self._ready(front)}
        paths["/metrics"] = {"GET": lambda _: Reply(200, self._metrics.text().encode(), CONTENT_TYPE)}
        paths["/openapi.json"] = {"GET": _constant(json_reply(describe.openapi(systems)))}
        paths["/docs"] = {"GET": _constant(Reply(200, describe.page(systems).encode(), "text/html; charset=utf-8", _PAGE_HEADERS))}
        for methods in paths.values():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]
        return paths

    def unready(self, *fronts: Front) -> str:
        """Why it cannot answer for these systems, or for one of all, empty when it can."""
        if self.draining:
            return "This process is about to end. Ask another."
        return " ".join([reason for front in fronts or self.fronts if (reason := front.service.ready()) is not None])

    def _ready(self, *fronts: Front) -> Handler:
        def handle(request: Request) -> Reply:
            reason = self.unready(*fronts)
            if not reason:
                return json_reply({"status": "ready"})
            return error_reply(503, reason, request.id, headers={"retry-after": _RETRY_SECONDS})

        return handle


def _constant(reply: Reply) -> Handler:
    return lambda _: reply


def _refuse_twice(systems: Sequence[str]) -> None:
    for name in systems:
        if systems.count(name) > 1:
            raise DeclarationError(f"System '{name}' is served twice. Give one workspace of it.")
