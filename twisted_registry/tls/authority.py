"""An authority of our own: who vouches for the certificates that we make ourselves.

What to do on a client that is to trust an authority of our own.
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

#: How long the authority is good for: as long as those live who have been told to trust it.
CA_LIFETIME: Final = timedelta(days=3650)
#: How long a certificate is good for.
LIFETIME: Final = timedelta(days=90)
#: Clients' clocks may be late.
_BACKDATE: Final = timedelta(hours=1)
_PEM: Final = serialization.Encoding.PEM


@frozen
class CertificateAuthority:
    """A certificate that clients trust, and its key.

    :ivar certificate: the certificate.
    :ivar key: never shown.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def make(cls, name: str, now: float) -> CertificateAuthority:
        """A new one.

        :param name: what clients see it called.
        :param now: seconds since the epoch.
        """
        key = generate_key()
        subject = subject_name(name)
        begin = datetime.fromtimestamp(now, UTC) - _BACKDATE
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
        """One that was made before, from PEM.

        :raises ValueError: if it is none.
        """
        loaded = serialization.load_pem_private_key(key, None)
        found = x509.load_pem_x509_certificate(certificate)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError("holds no key of an elliptic curve")  # noqa: TRY004 - bad content
        if loaded.public_key() != found.public_key():
            raise ValueError("key and certificate are not of one authority")
        return cls(found, loaded)

    def issue(self, hosts: Sequence[str], now: float) -> tuple[bytes, bytes]:
        """A certificate for hosts followed by ours, and its key; both PEM.

        :param hosts: names and addresses.
        :param now: seconds since the epoch.
        """
        key = generate_key()
        begin = datetime.fromtimestamp(now, UTC) - _BACKDATE
        ours = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
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
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours), critical=False
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(_PEM) + self.pem, key_pem(key)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(_PEM)


def generate_key() -> ec.EllipticCurvePrivateKey:
    """A new key; every client that speaks TLS 1.2 knows the curve."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key, without a passphrase."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def subject_name(name: str) -> x509.Name:
    """A subject that has a common name, of which there can be 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Names and addresses as a certificate has them."""
    return x509.SubjectAlternativeName(list(map(_alternative, hosts)))


def _alternative(host: str) -> x509.GeneralName:
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


#: Where clients look for authorities of one registry. containerd does if its ``config_path`` is
#: this, and needs no ``hosts.toml`` beside it.
_TRUST_DIRECTORIES: Final = {
    "docker": "/etc/docker/certs.d",
    "podman, buildah and skopeo": "/etc/containers/certs.d",
    "containerd": "/etc/containerd/certs.d",
}


def last_certificate(chain: bytes) -> bytes:
    """The last certificate of a chain; both PEM."""
    begin = chain.rindex(b"-----BEGIN CERTIFICATE-----")
    return chain[begin:]


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 of a certificate in PEM, as ``openssl x509 -fingerprint`` shows it."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex(":").upper()


def advice(host: str, port: int, path: str, certificate: bytes) -> Iterator[str]:
    """Lines for an operator.

    :param host: what clients call this registry.
    :param path: where the certificate can be downloaded from.
    :param certificate: of the authority, PEM.
    """
    place = host if port == 443 else f"{host}:{port}"
    url = f"https://{place}{path}"
    yield f"clients have to trust our authority: {url}, SHA-256 {fingerprint(certificate)}"
    for program, folder in _TRUST_DIRECTORIES.items():
        below = f"{folder}/{place}"
        yield f"to trust it, {program}: mkdir -p {below} && curl -ko {below}/ca.crt {url}"
