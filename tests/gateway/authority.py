"""An authority that signs certificates for tests."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._sign(self.name, self.key, ca=True))

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, ca: bool = False) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        hosts = [x509.DNSName("localhost")]
        made = x509.CertificateBuilder(
            self.name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1)
        )
        made = made.add_extension(x509.BasicConstraints(ca, None), critical=True)
        made = made.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, common_name: str, stem: str) -> tuple[Path, Path]:
        key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        files = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        files[0].write_bytes(self._sign(name, key))
        plain = serialization.NoEncryption()
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        return files
