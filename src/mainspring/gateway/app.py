"""The ASGI application: routes, checks at the door, errors in one shape, counts of all of it."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping

from mainspring.errors import DataError, RequestError, ServingError, StorageError, did_you_mean
from mainspring.gateway import describe, inference
from mainspring.gateway.front import Front, Handler, Request
from mainspring.gateway.http import Disconnected, Receive, Reply, Scope, Send, error_reply, json_reply, read_body, send_reply
from mainspring.gateway.metrics import CONTENT_TYPE, Metrics
from mainspring.gateway.service import Service

_log = logging.getLogger(__name__)
_SAFE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_RETRY_SECONDS = "1"
_GONE = 499
_STORAGE_FAILED = "A record or store failed; see the server's log. Send events again: one event id counts once."
_REASONS = {400: "malformed", 408: "too_slow", 413: "too_large", 415: "media_type"}


class App:
    """Systems over HTTP: ``POST /v1/<system>`` answers, ``.../rows`` many rows; ``.../events/<source>`` takes in facts, and
    ``.../predictions`` answers that devices gave.

    ``GET`` of /v1/<system>, /healthz, /readyz, /metrics, /openapi.json and /docs describes them; /v2 is the Open Inference Protocol.
    ``new_id`` makes the ids of requests that bring none. Once ``draining`` is set it is not ready any more, and answers all the same.
    """

    def __init__(
        self, *services: Service, new_id: Callable[[], str] = lambda: secrets.token_hex(16), metrics: Metrics | None = None
    ) -> None:
        self._fronts = [Front(service) for service in services]
        self._new_id = new_id
        self._metrics = metrics or Metrics()
        self._fields = frozenset(name for front in self._fronts for name in front.system.request.schema.names)
        self._routes = self._table()
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _SAFE_ID.fullmatch(given) else self._new_id()
        methods = self._routes.get(scope["path"])
        route = "other" if methods is None else scope["path"]
        try:
            reply = await self._reply(scope, headers, request_id, methods, receive)
        except Disconnected:
            self._metrics.count(route, _GONE, time.perf_counter() - started)
            return
        except Exception as error:
            reply = self._refuse(error, route, request_id)
        self._metrics.count(route, reply.status, time.perf_counter() - started, reply.answered_by, reply.version)
        await send_reply(reply, request_id, send)

    async def _reply(
        self, scope: Scope, headers: Mapping[bytes, bytes], request_id: str, methods: dict[str, Handler] | None, receive: Receive
    ) -> Reply:
        if methods is None:
            path = scope["path"][:100]
            return error_reply(404, f"There is nothing at {_printable(path)}.{did_you_mean(path, self._routes)}", request_id)
        handler = methods.get(scope["method"])
        if handler is None:
            allowed = ", ".join(methods)
            message = f"{scope['method']} is not possible here. Use {allowed}."
            return error_reply(405, message, request_id, headers={"allow": allowed})
        arrived_ns = time.perf_counter_ns()
        body = await read_body(headers, receive) if scope["method"] == "POST" else b""
        reply = handler(Request(request_id, headers, scope["query_string"], body, arrived_ns))
        return reply if isinstance(reply, Reply) else await reply

    def _refuse(self, error: Exception, route: str, request_id: str) -> Reply:
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
        systems = [front.system for front in self._fronts]
        paths: dict[str, dict[str, Handler]] = {}
        for front in self._fronts:
            paths |= front.routes()
        paths |= inference.routes(self._fronts)
        paths["/healthz"] = {"GET": _constant(json_reply({"status": "ok"}))}
        paths["/readyz"] = {"GET": self._ready}
        paths["/metrics"] = {"GET": lambda _: Reply(200, self._metrics.text().encode(), CONTENT_TYPE)}
        paths["/openapi.json"] = {"GET": _constant(json_reply(describe.openapi(systems)))}
        paths["/docs"] = {"GET": _constant(Reply(200, describe.page(systems).encode(), "text/html; charset=utf-8"))}
        for methods in paths.values():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]
        return paths

    def _ready(self, request: Request) -> Reply:
        reasons = [reason for front in self._fronts if (reason := front.service.ready()) is not None]
        if self.draining:
            reasons = ["This process is about to end. Ask another."]
        if not reasons:
            return json_reply({"status": "ready"})
        return error_reply(503, " ".join(reasons), request.id, headers={"retry-after": _RETRY_SECONDS})


def _constant(reply: Reply) -> Handler:
    return lambda _: reply


def _printable(text: str) -> str:
    return text.encode("ascii", errors="backslashreplace").decode()
