from __future__ import annotations

import os
import ssl
import time
from pathlib import Path

import httpx
import pytest
from authority import Authority
from cryptography import x509
from gateway_service import TRIP

from mainspring.errors import DeclarationError
from mainspring.gateway import background
from mainspring.gateway.door.tls import Certificate
from mainspring.gateway.settings import Access, Settings, Tls


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def trusting(authority: Authority, *certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT if hasattr(ssl, "VERIFY_X509_STRICT") else ~0
    if certificate:
        context.load_cert_chain(*certificate)
    return context


def test_a_certificate_of_a_client_is_its_name(authority, service):
    certificate, key = authority.issue("localhost", "server")
    settings = Settings(tls=Tls(certificate, key, authority.file), access=Access(certificates={"shop": ["eta:*"]}))
    with background(service, settings=settings) as url:
        there = url.replace("127.0.0.1", "localhost")
        assert there.startswith("https://")
        for name, status in (("shop", 200), ("other", 401)):
            with httpx.Client(verify=trusting(authority, *authority.issue(name, name)), trust_env=False) as client:
                assert client.post(f"{there}/v1/eta", json=TRIP).status_code == status
        with (
            httpx.Client(verify=trusting(authority), trust_env=False) as client,
            pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)),
        ):
            client.post(f"{there}/v1/eta", json=TRIP)
        old = trusting(authority, *authority.issue("shop", "shop"))
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
        assert httpx.get(f"{there}/healthz", verify=old, trust_env=False).status_code == 200


def test_a_renewed_certificate_is_taken_up(authority, service):
    certificate, key = authority.issue("localhost", "server")
    with background(service, settings=Settings(tls=Tls(certificate, key))) as url:
        port = int(url.rsplit(":", 1)[1])

        def serial() -> int:
            return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode()).serial_number

        first = serial()
        authority.issue("localhost", "server")
        os.utime(certificate, ns=(1, 1))
        until = time.monotonic() + 5
        while serial() == first and time.monotonic() < until:
            time.sleep(0.1)
        assert serial() != first


def test_what_cannot_be_used(authority, caplog):
    certificate, key = authority.issue("localhost", "server")
    other = authority.issue("localhost", "other")[1]
    with pytest.raises(DeclarationError, match="Settings, tls"):
        Certificate(Tls(certificate, other))
    used = Certificate(Tls(certificate, key))
    key.write_text("no key")
    used.renew()
    assert "the old one stays" in caplog.text
