"""Signed bearer tokens by a file of public keys. Sources: RFC 7519 (JWT), RFC 7517 (JWKS), RFC 8725 (what to refuse)."""

from __future__ import annotations

import json
import os
from typing import Any

from mainspring.clock import SECOND
from mainspring.errors import DeclarationError, MissingExtraError
from mainspring.gateway.door.access import Client, token_end
from mainspring.gateway.settings import Jwt

_KINDS = {"RS256": "RSA", "ES256": "EC"}
_CHECKED = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "iss", "aud"]}


class JwksVerifier:
    """Verifies RS256 and ES256 by the keys of a JWKS file, which is read again when it has changed.

    A key answers only for the algorithm of its own kind, so a token that is signed with the public key as an HMAC secret, or
    not at all, is refused whatever its header says.

    Raises:
        MissingExtraError: the package ``PyJWT`` is not installed.
        DeclarationError: the file holds no such keys.
    """

    def __init__(self, settings: Jwt) -> None:
        try:
            import cryptography  # noqa: F401
            import jwt
        except ImportError as error:
            raise MissingExtraError("A server that takes signed tokens", "PyJWT", "auth") from error
        self._jwt: Any = jwt
        self._settings = settings
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str | None, tuple[str, Any]] = {}
        self._reread()

    def verify(self, token: str, now: int) -> tuple[Client, int]:
        """The token's client, and the instant from which it is no longer good.

        Raises:
            ValueError: the token is not good; the message says why.
        """
        self._reread()
        settings, errors = self._settings, self._jwt.exceptions.PyJWTError
        try:
            head = self._jwt.get_unverified_header(token)
            algorithm, key = self._key(head)
            claims: dict[str, Any] = self._jwt.decode(
                token, key, algorithms=[algorithm], audience=settings.audience, issuer=settings.issuer, options=_CHECKED
            )
        except errors as error:
            raise ValueError(str(error)) from error
        end = self._check_times(claims, now)
        name, roles = claims.get(settings.client_claim), claims.get(settings.roles_claim, [])
        if not isinstance(name, str) or not 0 < len(name) <= 256:
            raise ValueError(f"the claim '{settings.client_claim}' names no client")
        words = roles.split() if isinstance(roles, str) else roles
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"the claim '{settings.roles_claim}' is no list of roles")
        return Client(f"jwt:{name}", frozenset(words)), end

    def _key(self, head: dict[str, Any]) -> tuple[str, Any]:
        known = self._keys.get(head.get("kid"))
        if known is None:
            raise ValueError("no key of this server has its 'kid'")
        if head.get("alg") != known[0]:
            raise ValueError(f"its key signs with {known[0]}, not {str(head.get('alg'))[:16]}")
        return known

    def _check_times(self, claims: dict[str, Any], now: int) -> int:
        leeway = self._settings.leeway
        try:
            end = token_end(claims, leeway)
            begin = int((float(claims.get("nbf", 0)) - leeway) * SECOND)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError("'exp' or 'nbf' is no number") from error
        if now >= end:
            raise ValueError("it has expired")
        if now < begin:
            raise ValueError("it is not valid yet")
        return end

    def _reread(self) -> None:
        file = self._settings.jwks
        try:
            status = os.stat(file)
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            self._keys = dict(map(self._read_key, json.loads(file.read_bytes())["keys"]))
            self._stamp = stamp
        except (OSError, ValueError, TypeError, KeyError, self._jwt.exceptions.PyJWTError) as error:
            if self._stamp is None:
                raise DeclarationError(
                    f"Settings, access.jwt.jwks: {file} cannot be read ({error}). Name a file of public keys."
                ) from error

    def _read_key(self, row: dict[str, Any]) -> tuple[str | None, tuple[str, Any]]:
        algorithm = row.get("alg") or next((name for name, kind in _KINDS.items() if kind == row.get("kty")), None)
        if _KINDS.get(str(algorithm)) != row.get("kty"):
            raise ValueError(f"key {row.get('kid')!r} is neither RS256 nor ES256")
        return row.get("kid"), (str(algorithm), self._jwt.PyJWK(row, algorithm).key)
