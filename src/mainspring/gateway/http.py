"""The little of HTTP that the application needs: heads, JSON, replies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from mainspring.errors import RequestError, did_you_mean

Headers = list[tuple[bytes, bytes]]

JSON = "application/json"
_JSON_BYTES = JSON.encode()

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json", re.IGNORECASE)


class Head(msgspec.Struct, frozen=True):
    """The head of a request: its path decoded, its header names in lower case.

    ``waited`` is how many seconds ago its bytes came; ``certificate`` the name in the one that its client showed, empty for none.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    query: bytes = b""
    waited: float = 0.0
    certificate: str = ""


class Reply(msgspec.Struct, frozen=True):
    """A whole response but for what its request adds; ``answered_by``, ``version`` and ``variant`` are for the metrics."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] | None = None
    answered_by: str = ""
    version: str = ""
    variant: str = ""

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return self.headers is not None and self.headers.get("connection") == "close"


def too_large(limit: int) -> RequestError:
    """The error of a body that is larger than it may be."""
    return RequestError("", f"The body is larger than {limit} bytes. Send less, events in several requests.", 413)


def too_slow() -> RequestError:
    """The error of a body that takes longer than it may."""
    return RequestError("", "The body did not come in time. Send it faster or smaller.", 408)


def declared(headers: Mapping[bytes, bytes]) -> int:
    """The length that a body is said to have, 0 where nothing is said."""
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
