import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from mainspring.errors import MissingExtraError, RegistryError
from mainspring.model_registry import open_registry
from mainspring.model_registry.adapters.ed25519 import signer, verifier


def write_keys(folder: Path, name: str) -> dict[str, str]:
    """PEM files as openssl writes them, and the environment that names them."""
    key = ed25519.Ed25519PrivateKey.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return {"MAINSPRING_SIGNING_KEY": str(private), "MAINSPRING_PUBLIC_KEY": str(public)}


def test_what_one_signs_the_public_half_verifies_and_no_other(tmp_path: Path) -> None:
    ours, theirs = write_keys(tmp_path, "ours"), write_keys(tmp_path, "theirs")
    with closing(open_registry(tmp_path / "registry", ours)) as registry:
        version = registry.register("model", "eta", {"rows": 7}, {"model.txt": b"tree"}, at=1)
    public = {"MAINSPRING_PUBLIC_KEY": ours["MAINSPRING_PUBLIC_KEY"]}
    with closing(open_registry(tmp_path / "registry", public)) as registry:
        assert registry.version("model:eta:1") == version
        assert registry.artifact(version, "model.txt") == b"tree"
        registry.register("model", "eta", {}, at=2)
        with pytest.raises(RegistryError, match="'model:eta:2' is not signed"):
            registry.version("model:eta:2")
    with closing(open_registry(tmp_path / "registry", theirs)) as registry:
        with pytest.raises(RegistryError, match="'model:eta:1': the signature does not fit"):
            registry.version("model:eta:1")
        assert "does not fit" in registry.verify(version)[0]
    with closing(open_registry(tmp_path / "registry", {})) as registry:
        assert registry.version("model:eta:1") == version


def test_a_file_that_holds_no_such_key_is_refused(tmp_path: Path) -> None:
    keys = write_keys(tmp_path, "ours")
    (tmp_path / "text").write_text("no key")
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "other").write_bytes(pem)
    for act, file in [
        (signer, tmp_path / "text"),
        (signer, tmp_path / "none"),
        (verifier, tmp_path / "text"),
        (signer, Path(keys["MAINSPRING_PUBLIC_KEY"])),
        (verifier, Path(keys["MAINSPRING_SIGNING_KEY"])),
    ]:
        with pytest.raises(RegistryError, match=f"Key {file}: cannot be read"):
            act(file)
    with pytest.raises(RegistryError, match="no Ed25519 key"):
        signer(tmp_path / "other")


def test_keys_that_openssl_makes_are_read(tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    try:
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    signature = signer(private)(b"message")
    assert verifier(public)(b"message", signature)
    assert not verifier(public)(b"massage", signature)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = write_keys(tmp_path, "ours")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mainspring\[signing\]'"):
        open_registry(tmp_path / "registry", keys)
