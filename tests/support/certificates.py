"""Certificate authorities and certificates."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

PEM = serialization.Encoding.PEM

#: Key usage of an authority; Python requires it since 3.13 (RFC 5280 section 4.2.1).
_AUTHORITY_KEY_USAGE = x509.KeyUsage(
    **dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
            *("key_agreement", "encipher_only", "decipher_only"),
        ),
        False,
    ),
    key_cert_sign=True,
    crl_sign=True,
)


@frozen
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name="server"):
        """Write both, and return their paths."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, content in zip(paths, (self.certificate, self.key), strict=True):
            path.write_bytes(content)
        return [str(path) for path in paths]

    def section(self, folder: Path):
        """Write both, and return the section ``tls`` of a configuration, below ``http``."""
        certificate, key = self.write(folder)
        return f"  tls:\n    certificate: {certificate}\n    key: {key}\n"


def encode_private_key(key, passphrase=None):
    """Encode a private key as PEM."""
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)


def rsa_key():
    """Generate an RSA key, which is slow."""
    return rsa.generate_private_key(65537, 2048)


@frozen
class Authority:
    """A certificate authority."""

    name: str = "authority"
    key: ec.EllipticCurvePrivateKey = field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def certificate(self):
        """Its own certificate."""
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        key_identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        return (
            certificate_builder(self.name, self.name, self.key.public_key())
            .add_extension(constraints, critical=True)
            .add_extension(_AUTHORITY_KEY_USAGE, critical=True)
            .add_extension(key_identifier, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self):
        """The certificate as PEM."""
        return self.certificate.public_bytes(PEM)

    def issue(self, *hosts, subject="server", key=None, days=30, client=False):
        """Issue a certificate for host names and addresses.

        :param days: its validity; negative if it has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
        builder = certificate_builder(subject, self.name, key.public_key(), days)
        if hosts:
            builder = builder.add_extension(alternative_names(*hosts), critical=False)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = (
            builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Issued(made.public_bytes(PEM), encode_private_key(key))

    def client(self, certificate=None, **settings):
        """Return the SSLContext of a client that trusts this authority.

        :param certificate: the paths of a certificate and its key.
        :param settings: attributes of the context.
        """
        context = ssl.create_default_context(cadata=self.pem.decode())
        for name, value in settings.items():
            setattr(context, name, value)
        if certificate:
            context.load_cert_chain(*certificate)
        return context


def certificate_builder(subject, issuer, key, days=30):
    """Return a certificate for a public key without extensions, to be signed.

    :param days: its validity; negative if it has expired.
    """
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(subject))
        .issuer_name(_common_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=min(days, 0) - 1))
        .not_valid_after(now + timedelta(days=days))
    )


def _common_name(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def alternative_names(*hosts):
    """Return the extension that names hosts and addresses."""
    return x509.SubjectAlternativeName(list(map(_general_name, hosts)))


def _general_name(host):
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
