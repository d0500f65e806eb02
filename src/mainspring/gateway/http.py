"""The little of HTTP that the application needs: bodies with a limit, JSON, replies."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from mainspring.errors import RequestError, did_you_mean
from mainspring.gateway.door.wire import Connection

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = "application/json"
_JSON_BYTES = JSON.encode()

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json", re.IGNORECASE)


class Disconnected(Exception):  # noqa: N818
    """The client left before its request was whole."""


class Reply(msgspec.Struct, frozen=True):
    """A whole response but for the request id; ``answered_by``, ``version`` and ``variant`` are for the metrics."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] | None = None
    answered_by: str = ""
    version: str = ""
    variant: str = ""


async def read_body(scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The request's body, of at most ``limit`` bytes; of a larger one no more is read than it takes to see that.

    Raises:
        RequestError: 413 when it is larger, declared or counted; 408 when its connection finds that it takes too long.
        Disconnected: the client left.
    """
    if _declared(headers) > limit:
        raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False) and len(message["body"]) <= limit:
        body: bytes = message["body"]
        return body
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        connection: Connection | None = scope.get("connection")
        if connection is not None and connection.late:
            raise RequestError("", "The body did not come in time. Send it faster or smaller.", 408)
        message = await receive()


def _too_large(limit: int) -> RequestError:
    return RequestError("", f"The body is larger than {limit} bytes. Send less, events in several requests.", 413)


def _declared(headers: Mapping[bytes, bytes]) -> int:
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def check_json_type(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that is declared to be something else than JSON.

    Raises:
        RequestError: 415 when a content type is given that is not JSON.
    """
    given = headers.get(b"content-type", _JSON_BYTES)
    if given == _JSON_BYTES:
        return
    content_type = given.decode("latin-1").partition(";")[0].strip()
    if content_type and not _JSON_TYPE.fullmatch(content_type):
        raise RequestError("", f"The content type '{content_type[:64]}' is not JSON. Send 'Content-Type: {JSON}'.", 415)


def decode_json(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """The body as plain data.

    Raises:
        RequestError: 400 when the body is not JSON.
    """
    try:
        return decoder.decode(body)
    except RecursionError as error:
        raise RequestError("", "The JSON is nested too deeply. Send flat objects.", 400) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError("", f"The body is not JSON: {error}.", 400) from error


@lru_cache(maxsize=64)
def flag(query: bytes, name: str, default: bool) -> bool:
    """The only query parameter of a route, ``true`` or ``false``.

    Raises:
        RequestError: another parameter is given, or the value is neither.
    """
    if not query:
        return default
    for key, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if key != name:
            raise RequestError(key[:64], f"is not a known query parameter.{did_you_mean(key[:64], [name])}")
        if value not in ("true", "false"):
            raise RequestError(name, "must be true or false")
        default = value == "true"
    return default


def json_reply(value: Any, status: int = 200) -> Reply:
    """A value as a JSON reply."""
    return Reply(status, msgspec.json.encode(value))


def error_reply(status: int, message: str, request_id: str, field_name: str = "", headers: Mapping[str, str] | None = None) -> Reply:
    """An error in the one shape that errors have."""
    error = {"field": field_name or None, "message": message, "request_id": request_id}
    return Reply(status, msgspec.json.encode({"error": error}), headers=headers)


async def send_reply(reply: Reply, request_id: str, send: Send, more: Headers) -> None:
    """Send a whole response, with ``more`` headers than its own."""
    headers: Headers = [
        (b"content-type", reply.content_type.encode()),
        (b"content-length", b"%d" % len(reply.body)),
        (b"x-request-id", request_id.encode()),
    ]
    if reply.headers:
        headers += [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    headers += more
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
