"""Which pages of other origins a browser lets read the answers. Source: the Fetch standard, CORS protocol."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from mainspring.gateway.http import Headers, Reply
from mainspring.gateway.settings import Cors

_VARY = (b"vary", b"origin")
_EXPOSED = (b"access-control-expose-headers", b"x-request-id, retry-after, ratelimit, ratelimit-policy")
_METHODS = "GET, HEAD, POST"
_HEADERS = "authorization, content-type, traceparent, tracestate, x-api-key, x-deadline-ms, x-priority, x-request-id"


class Origins:
    """The allowed origins; a suffix stands for the hosts under it, by https alone."""

    def __init__(self, settings: Cors) -> None:
        self._exact = frozenset(one.encode() for one in settings.origins if not one.startswith("."))
        self._suffixes = tuple(one for one in settings.origins if one.startswith("."))
        self._max_age = str(round(settings.max_age))
        self.some = bool(settings.origins)
        self.allows = lru_cache(maxsize=1024)(self._allows)

    def headers(self, origin: bytes | None) -> Headers:
        """What an answer to a page of this origin carries."""
        if origin is None or not self.allows(origin):
            return [_VARY]
        return [_VARY, (b"access-control-allow-origin", origin), _EXPOSED]

    def preflight(self) -> Reply:
        """The answer to the question that a browser asks first; it may remember it for ``max_age``."""
        headers = {
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": _HEADERS,
            "access-control-max-age": self._max_age,
        }
        return Reply(204, b"", headers=headers)

    def _allows(self, origin: bytes) -> bool:
        if origin in self._exact:
            return True
        if not self._suffixes:
            return False
        try:
            parts = urlsplit(origin.decode("ascii"))
        except ValueError:
            return False
        return parts.scheme == "https" and parts.netloc == parts.hostname and parts.netloc.endswith(self._suffixes)
