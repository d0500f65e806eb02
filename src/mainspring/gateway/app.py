"""The ASGI application: routes, checks at the door, errors in one shape, counts of all of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from mainspring.errors import DataError, RequestError, ServingError, StorageError, did_you_mean
from mainspring.gateway import describe
from mainspring.gateway.door import Door
from mainspring.gateway.http import (
    Disconnected,
    Receive,
    Reply,
    Scope,
    Send,
    decode_json,
    error_reply,
    flag,
    json_reply,
    read_body,
    send_reply,
)
from mainspring.gateway.metrics import CONTENT_TYPE
from mainspring.gateway.service import Service
from mainspring.gateway.settings import Settings
from mainspring.ingestion import Contract

_log = logging.getLogger(__name__)
_RETRY_SECONDS = "1"
_GONE = 499
_STORAGE_FAILED = "A record or store failed; see the server's log. Send events again: one event id counts once."
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_REASONS = {400: "malformed", 408: "too_slow", 413: "too_large", 415: "media_type"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its id, headers with lower-case names, query and body."""

    id: str
    headers: Mapping[bytes, bytes]
    query: bytes
    body: bytes


Handler = Callable[[Request], Reply]


class App:
    """One system over HTTP: ``POST /v1/<system>`` answers, ``POST /v1/<system>/events/<source>`` takes in facts.

    ``GET`` of /v1/<system>, /healthz, /readyz, /metrics, /openapi.json and /docs describes it. Requests are checked against
    the contract of ``system.request`` before the service sees them. ``door`` lets requests in; without it everybody may come.
    """

    def __init__(self, service: Service, door: Door | None = None) -> None:
        self._service = service
        self._door = door or Door(Settings())
        self._metrics = self._door.metrics
        self._contract = Contract(service.system.request)
        self._decoder = msgspec.json.Decoder()
        self._fields = frozenset(service.system.request.schema.names)
        self._routes = self._table()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(scope["headers"])
        methods = self._routes.get(scope["path"])
        visit = self._door.enter(scope, headers, methods is not None)
        request_id = visit.identity.request_id
        try:
            reply = await self._door.check(visit, scope) or await self._reply(scope, headers, request_id, methods, receive)
        except Disconnected:
            self._door.leave(visit, Reply(_GONE, b""))
            return
        except Exception as error:
            reply = self._refuse(error, visit.route, request_id)
        await send_reply(reply, request_id, send, self._door.leave(visit, reply))

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
        posted = scope["method"] == "POST"
        body = await read_body(scope, headers, receive, self._door.body_limit(scope["path"])) if posted else b""
        self._door.begin()
        return handler(Request(request_id, headers, scope["query_string"], body))

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
        system = self._service.system
        home = f"/v1/{system.name}"
        sources = {source.name: source for source in (system.request, *system.sources)}
        paths: dict[str, dict[str, Handler]] = {home: {"GET": self._metadata, "POST": self._answer}}
        for name in sources:
            paths[f"{home}/events/{name}"] = {"POST": self._events(name)}
        paths["/healthz"] = {"GET": _constant(json_reply({"status": "ok"}))}
        paths["/readyz"] = {"GET": self._ready}
        paths["/metrics"] = {"GET": lambda _: Reply(200, self._metrics.text().encode(), CONTENT_TYPE)}
        paths["/openapi.json"] = {"GET": _constant(json_reply(describe.openapi(system)))}
        paths["/docs"] = {"GET": _constant(Reply(200, describe.page(system).encode(), "text/html; charset=utf-8", _PAGE_HEADERS))}
        for methods in paths.values():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]
        return paths

    def _answer(self, request: Request) -> Reply:
        body = decode_json(request.headers, request.body, self._decoder)
        explain = flag(request.query, "explain", True)
        if not isinstance(body, dict):
            raise RequestError("", "The body must be one JSON object with the request's columns.", 400)
        answer = self._service.answer(self._contract.check(body), request_id=request.id, explain=explain)
        answered_by, version, variant = (str(getattr(answer, name, None) or "") for name in ("answered_by", "version", "variant"))
        return Reply(200, msgspec.json.encode(answer), answered_by=answered_by, version=version, variant=variant)

    def _events(self, source: str) -> Handler:
        def handle(request: Request) -> Reply:
            body = decode_json(request.headers, request.body, self._decoder)
            rows = body if isinstance(body, list) else [body]
            for number, row in enumerate(rows):
                if not isinstance(row, dict):
                    where = f"[{number}]" if isinstance(body, list) else ""
                    raise RequestError(where, "The body must be a JSON object or an array of objects.", 400)
            return json_reply(self._service.ingest(source, rows))

        return handle

    def _metadata(self, _: Request) -> Reply:
        return json_reply({**describe.metadata(self._service.system), **self._service.metadata()})

    def _ready(self, request: Request) -> Reply:
        reason = self._service.ready()
        if reason is None:
            return json_reply({"status": "ready"})
        return error_reply(503, reason, request.id, headers={"retry-after": _RETRY_SECONDS})


def _constant(reply: Reply) -> Handler:
    return lambda _: reply


def _printable(text: str) -> str:
    return text.encode("ascii", errors="backslashreplace").decode()
