"""A certificate authority for certificates that the registry issues to itself.

Also the instructions for making clients trust the authority.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The lifetime of the authority. Clients have to be changed after it, so it is long.
CA_LIFETIME: Final = timedelta(days=3650)
#: The lifetime of an issued certificate.
LIFETIME: Final = timedelta(days=90)
#: How long before its creation a certificate becomes valid, for clients whose clocks are late.
BACKDATE: Final = timedelta(hours=1)
_PEM: Final = serialization.Encoding.PEM


@frozen
class CertificateAuthority:
    """A certificate authority.

    :ivar certificate: its certificate, which clients trust.
    :ivar key: its private key; not part of the repr.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def make(cls, name: str, now: float) -> CertificateAuthority:
        """Create a new authority.

        :param name: its common name, as clients see it.
        :param now: in seconds since the epoch.
        """
        key = generate_key()
        subject = subject_name(name)
        begin = datetime.fromtimestamp(now, UTC) - BACKDATE
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> CertificateAuthority:
        """Load an authority from PEM.

        :raises ValueError: if certificate or key are malformed, or do not fit together.
        """
        private_key = serialization.load_pem_private_key(key, None)
        own = x509.load_pem_x509_certificate(certificate)
        if not isinstance(private_key, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is not of an elliptic curve")  # noqa: TRY004 - bad content
        if private_key.public_key() != own.public_key():
            raise ValueError("key and certificate do not match")
        return cls(own, private_key)

    def issue(self, hosts: Sequence[str], now: float) -> tuple[bytes, bytes]:
        """Issue a certificate; return it followed by the authority's, and its key, both PEM.

        :param hosts: host names and IP addresses.
        :param now: in seconds since the epoch.
        """
        key = generate_key()
        begin = datetime.fromtimestamp(now, UTC) - BACKDATE
        issuer_id = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        certificate = (
            x509.CertificateBuilder(
                self.certificate.subject,
                subject_name(hosts[0]),
                key.public_key(),
                x509.random_serial_number(),
            )
            .not_valid_before(begin)
            .not_valid_after(min(begin + LIFETIME, self.certificate.not_valid_after_utc))
            .add_extension(alternative_names(hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(_PEM) + self.pem, key_pem(key)

    @property
    def pem(self) -> bytes:
        """The certificate of the authority in PEM."""
        return self.certificate.public_bytes(_PEM)


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key on the curve P-256, which every client with TLS 1.2 supports."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key in PEM, without a passphrase."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def subject_name(name: str) -> x509.Name:
    """Return a subject with a common name, which is cut off after 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Return the extension with host names and IP addresses."""
    return x509.SubjectAlternativeName(list(map(_general_name, hosts)))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


#: The directories where clients look for the authorities of a registry. containerd does so if its
#: ``config_path`` is this directory; it needs no ``hosts.toml``.
_TRUST_DIRECTORIES: Final = {
    "docker": "/etc/docker/certs.d",
    "podman, buildah and skopeo": "/etc/containers/certs.d",
    "containerd": "/etc/containerd/certs.d",
}


def last_certificate(chain: bytes) -> bytes:
    """Return the last certificate of a chain; both PEM."""
    return chain[chain.rindex(b"-----BEGIN CERTIFICATE-----") :]


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate in PEM, formatted like ``openssl x509 -fingerprint``."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex(":").upper()


def trust_instructions(host: str, port: int, path: str, certificate: bytes) -> Iterator[str]:
    """Yield lines that tell an operator how to make clients trust the authority.

    :param host: the name of the registry for clients.
    :param port: the port of the registry.
    :param path: the path of the URL from which clients can download the certificate.
    :param certificate: the certificate of the authority in PEM.
    """
    address = host if port == 443 else f"{host}:{port}"
    url = f"https://{address}{path}"
    digest = fingerprint(certificate)
    yield f"clients have to trust the authority of this registry: {url}, SHA-256 {digest}"
    for program, folder in _TRUST_DIRECTORIES.items():
        target = f"{folder}/{address}"
        yield f"to trust it, {program}: mkdir -p {target} && curl -ko {target}/ca.crt {url}"
