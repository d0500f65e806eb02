"""Ed25519 keys in PEM files, as ``openssl genpkey -algorithm ed25519`` makes them. Source: RFC 8032."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from mainspring.errors import MissingExtraError, RegistryError
from mainspring.model_registry.signatures import Sign, Verify


def signer(private: Path) -> Sign:
    """What signs with the private key in a PEM file (PKCS #8, not encrypted).

    Raises:
        RegistryError: the file holds no such key.
        MissingExtraError: the package ``cryptography`` is not installed.
    """
    key = _key(private, "load_pem_private_key", "private", password=None)
    return lambda message: bytes(key.sign(message))


def verifier(public: Path) -> Verify:
    """What verifies with the public key in a PEM file (SubjectPublicKeyInfo).

    Raises:
        RegistryError: the file holds no such key.
        MissingExtraError: the package ``cryptography`` is not installed.
    """
    key = _key(public, "load_pem_public_key", "public")
    invalid = importlib.import_module("cryptography.exceptions").InvalidSignature

    def verify(message: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, message)
        except invalid:
            return False
        return True

    return verify


def _key(file: Path, load: str, half: str, **options: Any) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("A signed registry", "cryptography", "signing") from error
    try:
        key = getattr(serialization, load)(file.read_bytes(), **options)
    except (OSError, ValueError, TypeError) as error:
        raise RegistryError(f"Key {file}: cannot be read ({error}). Name a PEM file with the {half} half of an Ed25519 key.") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey if half == "private" else ed25519.Ed25519PublicKey):
        raise RegistryError(f"Key {file}: this is no Ed25519 key. Make one: openssl genpkey -algorithm ed25519")
    return key
