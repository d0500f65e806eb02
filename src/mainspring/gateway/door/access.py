"""Who a client is (API key, bearer token, certificate) and what it may do (roles ``<system>:<verb>``, either may be ``*``)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from mainspring.clock import SECOND
from mainspring.gateway.door.refusal import Refusal
from mainspring.gateway.settings import Access, Key, Priority

_PREFIX = "ms_"
_CHALLENGE = {"www-authenticate": 'Bearer realm="mainspring"'}
_INVALID = {"www-authenticate": 'Bearer realm="mainspring", error="invalid_token"'}
_REMEMBERED_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: a name for limits and logs, roles, and how soon it is refused under overload."""

    name: str
    roles: frozenset[str]
    priority: Priority = "default"


class TokenVerifier(Protocol):
    """What checks a bearer token's signature and claims."""

    def verify(self, token: str, now: int) -> tuple[Client, int]:
        """The client, and the instant (microseconds) from which the token is no longer good.

        Raises:
            ValueError: the token is not good; the message says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the secret to hand over, and what the settings keep of it."""

    secret: str
    key: Key


def new_key(client: str, roles: list[str]) -> NewKey:
    """A random API key, ``ms_<id>_<256 bits>``."""
    key_id = secrets.token_hex(6)
    secret = f"{_PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    return NewKey(secret, Key(key_id, client, hashlib.sha256(secret.encode()).hexdigest(), roles))


class Gatekeeper:
    """Finds out who asks, and whether they may."""

    def __init__(self, access: Access, tokens: TokenVerifier | None = None) -> None:
        self._anonymous = Client("anonymous", frozenset(access.open_roles))
        self._keys = {
            key.id: (bytes.fromhex(key.sha256), key.expires, Client(key.client, frozenset(key.roles), key.priority)) for key in access.keys
        }
        self._certificates = {name: Client(name, frozenset(roles)) for name, roles in access.certificates.items()}
        self._tokens = tokens
        self._verified: dict[bytes, tuple[Client, int]] = {}

    def identify(self, headers: Mapping[bytes, bytes], certificate: str, now: int) -> Client | Refusal:
        """The client behind ``x-api-key``, ``authorization: Bearer``, or the certificate's name; 401 when what it shows is not good."""
        shown = headers.get(b"x-api-key")
        if shown is None:
            scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
            if not scheme:
                return self._certificates.get(certificate, self._anonymous)
            if scheme.lower() != b"bearer":
                return Refusal(401, "unauthenticated", "Send 'Authorization: Bearer <key or token>' or 'X-Api-Key'.", _CHALLENGE)
        if shown.startswith(_PREFIX.encode()):
            return self._by_key(shown, now)
        return self._by_token(shown, now)

    def _by_key(self, shown: bytes, now: int) -> Client | Refusal:
        known = self._keys.get(shown[3:].partition(b"_")[0].decode("latin-1"))
        if known is None or not hmac.compare_digest(hashlib.sha256(shown).digest(), known[0]):
            return Refusal(401, "unauthenticated", "The API key is not known. Ask whoever runs this server for one.", _INVALID)
        if known[1] is not None and now >= known[1]:
            return Refusal(401, "unauthenticated", "The API key has expired. Ask whoever runs this server for a new one.", _INVALID)
        return known[2]

    def _by_token(self, shown: bytes, now: int) -> Client | Refusal:
        digest = hashlib.sha256(shown).digest()
        known = self._verified.get(digest)
        if known is not None and now < known[1]:
            return known[0]
        if self._tokens is None:
            return Refusal(401, "unauthenticated", "This server takes no such token. Send an API key.", _INVALID)
        try:
            known = self._tokens.verify(shown.decode("ascii"), now)
        except ValueError as error:
            self._verified.pop(digest, None)
            return Refusal(401, "unauthenticated", f"The token is not good: {error}.", _INVALID)
        if len(self._verified) >= _REMEMBERED_TOKENS:
            self._verified.pop(next(iter(self._verified)))
        self._verified[digest] = known
        return known[0]


@lru_cache(maxsize=4096)
def roles_for(system: str, verb: str) -> frozenset[str]:
    """The roles any of which allows the verb on the system."""
    return frozenset(f"{one}:{other}" for one in (system, "*") for other in (verb, "*"))


def missing_role(client: Client, system: str, verb: str) -> Refusal | None:
    """None when the client may; 401 for one that showed nothing, 403 for one that is known and may not."""
    if not client.roles.isdisjoint(roles_for(system, verb)):
        return None
    role = f"{system or '*'}:{verb}"
    if client.name == "anonymous":
        return Refusal(401, "unauthenticated", f"This needs the role '{role}'. Send 'Authorization: Bearer <key or token>'.", _CHALLENGE)
    headers = {"www-authenticate": 'Bearer realm="mainspring", error="insufficient_scope"'}
    return Refusal(403, "forbidden", f"Client '{client.name}' needs the role '{role}' for this.", headers)


def token_end(claims: Mapping[str, object], leeway: float) -> int:
    """The instant, microseconds, from which a token's ``exp`` is past."""
    return int((float(str(claims["exp"])) + leeway) * SECOND)
