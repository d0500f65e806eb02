from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mainspring.clock import SECOND
from mainspring.gateway.door.access import Client, Gatekeeper, missing_role, new_key
from mainspring.gateway.door.refusal import Refusal
from mainspring.gateway.settings import Access, Instant, Jwt

NOW = 1_700_000_000 * SECOND


def shown(gatekeeper: Gatekeeper, now: int = NOW, certificate: str = "", **headers: str) -> Client | Refusal:
    return gatekeeper.identify({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}, certificate, now)


def test_a_key_is_known_by_either_header():
    made = new_key("shop", ["eta:answer"])
    gatekeeper = Gatekeeper(Access(keys=[made.key]))
    for headers in ({"x_api_key": made.secret}, {"authorization": f"Bearer {made.secret}"}, {"authorization": f"bearer {made.secret}"}):
        assert shown(gatekeeper, **headers) == Client("shop", frozenset({"eta:answer"}))
    assert made.secret not in repr(made.key)


def test_what_is_nearly_the_key_is_refused():
    made = new_key("shop", ["eta:answer"])
    gatekeeper = Gatekeeper(Access(keys=[made.key]))
    other = new_key("shop", [])
    for wrong in (made.secret[:-1], made.secret + "x", other.secret, f"ms_{made.key.id}_", "ms_", "ms_\xff", made.secret.upper(), ""):
        found = shown(gatekeeper, x_api_key=wrong)
        assert isinstance(found, Refusal)
        assert (found.status, found.reason) == (401, "unauthenticated")
        assert found.headers["www-authenticate"].startswith("Bearer")
    basic = shown(gatekeeper, authorization=f"Basic {made.secret}")
    assert isinstance(basic, Refusal)


def test_a_key_ends_at_its_instant():
    made = new_key("shop", [])
    gatekeeper = Gatekeeper(Access(keys=[msgspec.structs.replace(made.key, expires=Instant(NOW))]))
    assert isinstance(shown(gatekeeper, NOW - 1, x_api_key=made.secret), Client)
    found = shown(gatekeeper, NOW, x_api_key=made.secret)
    assert isinstance(found, Refusal)
    assert "expired" in found.message


def test_roles():
    client = Client("shop", frozenset({"eta:answer", "*:metrics", "fraud:*"}))
    assert missing_role(client, "eta", "answer") is None
    assert missing_role(client, "", "metrics") is None
    assert missing_role(client, "fraud", "admin") is None
    refusal = missing_role(client, "eta", "events")
    assert refusal is not None
    assert (refusal.status, refusal.message) == (403, "Client 'shop' needs the role 'eta:events' for this.")
    unknown = missing_role(Client("anonymous", frozenset()), "eta", "answer")
    assert unknown is not None
    assert unknown.status == 401


def test_a_certificate_names_a_client():
    gatekeeper = Gatekeeper(Access(certificates={"shop.example": ["eta:*"]}))
    assert shown(gatekeeper, certificate="shop.example") == Client("shop.example", frozenset({"eta:*"}))
    assert shown(gatekeeper, certificate="else.example") == Client("anonymous", frozenset())


class Issuer:
    """An identity provider with one key of each kind."""

    def __init__(self, folder: Path) -> None:
        self.jwt = pytest.importorskip("jwt")
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        self.keys: dict[str, Any] = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1())}
        self.file = folder / "jwks.json"
        self.write("RS256", "ES256")

    def write(self, *algorithms: str) -> None:
        rows = []
        for name in algorithms:
            kind = self.jwt.algorithms.RSAAlgorithm if name == "RS256" else self.jwt.algorithms.ECAlgorithm
            rows.append(json.loads(kind.to_jwk(self.keys[name].public_key())) | {"kid": name})
        self.file.write_text(json.dumps({"keys": rows}))

    def token(self, algorithm: str = "RS256", **changes: Any) -> str:
        seconds = NOW // SECOND
        claims = {
            "iss": "https://id",
            "aud": "eta",
            "sub": "ann",
            "roles": ["eta:answer"],
            "exp": seconds + 60,
            "nbf": seconds - 60,
        } | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return str(self.jwt.encode(claims, self.keys[algorithm], algorithm=algorithm, headers={"kid": algorithm}))

    def gatekeeper(self) -> Gatekeeper:
        from mainspring.gateway.adapters.jwt import JwksVerifier

        access = Access(jwt=Jwt(self.file, "https://id", "eta"))
        assert access.jwt is not None
        return Gatekeeper(access, JwksVerifier(access.jwt))


@pytest.fixture
def issuer(tmp_path):
    return Issuer(tmp_path)


def bearer(gatekeeper: Gatekeeper, token: str, now: int = NOW) -> Client | Refusal:
    return shown(gatekeeper, now, authorization=f"Bearer {token}")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_is_known_until_it_expires(issuer, algorithm):
    gatekeeper, token = issuer.gatekeeper(), issuer.token(algorithm)
    for _ in range(2):
        assert bearer(gatekeeper, token) == Client("jwt:ann", frozenset({"eta:answer"}))
    end = NOW + 90 * SECOND
    assert isinstance(bearer(gatekeeper, token, end - 1), Client)
    found = bearer(gatekeeper, token, end)
    assert isinstance(found, Refusal)
    assert "expired" in found.message


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://else"}, "issuer"),
        ({"aud": "fraud"}, "[Aa]udience"),
        ({"aud": None}, "aud"),
        ({"exp": None}, "exp"),
        ({"nbf": NOW // SECOND + 31}, "not valid yet"),
        ({"exp": NOW // SECOND - 31}, "expired"),
        ({"sub": None}, "names no client"),
        ({"roles": [3]}, "no list of roles"),
    ],
)
def test_claims_that_are_not_good(issuer, changes, why):
    found = bearer(issuer.gatekeeper(), issuer.token(**changes))
    assert isinstance(found, Refusal)
    assert found.status == 401
    assert __import__("re").search(why, found.message), found.message


def test_no_signature_and_the_public_key_as_a_secret_are_refused(issuer):
    import base64
    import hashlib
    import hmac

    from cryptography.hazmat.primitives import serialization

    gatekeeper = issuer.gatekeeper()
    claims = issuer.token().split(".")[1]
    public = issuer.keys["RS256"].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    for algorithm in ("none", "None", "HS256", "ES256"):
        head = encoded(json.dumps({"alg": algorithm, "kid": "RS256", "typ": "JWT"}).encode())
        signature = encoded(hmac.digest(public, f"{head}.{claims}".encode(), hashlib.sha256)) if algorithm == "HS256" else ""
        found = bearer(gatekeeper, f"{head}.{claims}.{signature}")
        assert isinstance(found, Refusal), algorithm
    assert isinstance(bearer(gatekeeper, "a.b.c"), Refusal)
    assert isinstance(bearer(gatekeeper, issuer.token() + "A"), Refusal)


def test_the_file_of_keys_is_read_again(issuer):
    issuer.write("RS256")
    gatekeeper = issuer.gatekeeper()
    assert isinstance(bearer(gatekeeper, issuer.token("ES256")), Refusal)
    issuer.write("ES256")
    assert isinstance(bearer(gatekeeper, issuer.token("ES256")), Client)
    issuer.file.write_text("{")
    assert isinstance(bearer(gatekeeper, issuer.token("ES256", jti="2")), Client)
