"""TLS 1.2 and newer; certificates of clients; a renewed certificate without a restart."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from mainspring.errors import DeclarationError
from mainspring.gateway.settings import Tls

_log = logging.getLogger(__name__)


class Certificate:
    """The server's side of TLS; new connections get the certificate that is in the file.

    Raises:
        DeclarationError: certificate and key cannot be read, or do not belong together.
    """

    def __init__(self, settings: Tls) -> None:
        self._settings = settings
        self._stamp = self._look()
        try:
            self.context = self._load()
        except (OSError, ssl.SSLError) as error:
            raise DeclarationError(
                f"Settings, tls: {settings.certificate} and {settings.key} cannot be used ({error}). Name a certificate and its key as PEM."
            ) from error

    def renew(self) -> None:
        """Take up a changed certificate; one that cannot be used is logged, and the old one stays."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        try:
            self._load()
        except (OSError, ssl.SSLError) as error:
            _log.error("Certificate %s has changed and cannot be used (%s); the old one stays.", self._settings.certificate, error)
        else:
            self.context.load_cert_chain(self._settings.certificate, self._settings.key)
        self._stamp = stamp

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._settings.certificate, self._settings.key)
        if self._settings.client_ca is not None:
            context.load_verify_locations(self._settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _look(self) -> tuple[int, ...]:
        try:
            return tuple(file.stat().st_mtime_ns for file in (self._settings.certificate, self._settings.key))
        except OSError:
            return ()


def name_in(certificate: dict[str, Any] | None) -> str:
    """The common name of a verified client certificate, empty where there is none."""
    parts = (pair for part in (certificate or {}).get("subject", ()) for pair in part)
    return next((str(value) for name, value in parts if name == "commonName"), "")
