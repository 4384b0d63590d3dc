"""A certificate for ``localhost`` and the authority that vouches for it, made anew for each test."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(directory: Path) -> tuple[Path, Path, Path]:
    """Files: authority, certificate, key (all PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (directory / "ca.pem").write_bytes(pem)
    (directory / "cert.pem").write_bytes(pem)
    form = serialization.PrivateFormat.PKCS8
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    return directory / "ca.pem", directory / "cert.pem", directory / "key.pem"


class Authority:
    """A CA in a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = self._write(name, self._certificate(self._name, self._key.public_key(), ca=True))

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._directory / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        ca: bool,
        expired: bool = False,
        names: tuple[str, ...] = (),
    ) -> x509.Certificate:
        now = datetime.now(UTC) - timedelta(days=9 if expired else 0)
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        address = x509.SubjectAlternativeName(
            [here, x509.DNSName("localhost"), *(x509.UniformResourceIdentifier(name) for name in names)]
        )
        builder = x509.CertificateBuilder(
            self._name,
            subject,
            key,
            x509.random_serial_number(),
            now - timedelta(hours=1),
            now + timedelta(days=1),
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return builder.add_extension(address, critical=False).sign(self._key, hashes.SHA256())

    def issue(self, name: str, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key; ``names`` are URIs in it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        secret = self._directory / f"{name}.key"
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return self._write(
            name, self._certificate(subject, key.public_key(), ca=False, expired=expired, names=names)
        ), secret
