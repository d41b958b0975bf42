"""The folder with the ACME account key, the certificate and the open challenges.

Names and contents of the files are those of golang.org/x/crypto/acme/autocert, so the folder that
Distribution calls ``cachefile`` can be used by either. One certificate is for all hosts; its file
has the name of the first host. All processes that share the folder answer challenges and use the
certificate; a lock lets one of them order at a time. All functions here block.

The certificates that answer challenges, and the placeholder until there is a certificate, are
self-signed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from zope.interface import implementer

from twisted_registry.storage.files import exclusive_lock, file_version, replace_file
from twisted_registry.tls.authority import (
    BACKDATE,
    alternative_names,
    generate_key,
    key_pem,
    subject_name,
)
from twisted_registry.tls.certificates import host_names
from twisted_registry.tls.interfaces import CertificateBundle, CertificateError, ICertificateSource
from twisted_registry.tls.sources import read_authorities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

#: ``id-pe-acmeIdentifier`` (RFC 8737, section 3).
_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
#: The DER header of an OCTET STRING with 32 bytes.
_OCTETS_32: Final = b"\x04\x20"
#: The common name of the placeholder certificate.
PLACEHOLDER_NAME: Final = "waiting for a certificate"
_SELF_SIGNED_LIFETIME: Final = timedelta(days=7)
#: The configuration key that errors name.
_CONFIG_KEY: Final = "letsencrypt.cachefile"
_BEGIN_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
#: A certificate is replaced when this part of its lifetime is left: 30 days of 90.
_RENEW_FRACTION: Final = 1 / 3


def make_challenge_certificate(host: str, authorization: str, now: float) -> tuple[bytes, bytes]:
    """Return the certificate that answers a challenge for a host, and its key; both PEM.

    :param authorization: the key authorization (RFC 8555, section 8.1).
    :param now: in seconds since the epoch.
    """
    digest = _OCTETS_32 + sha256(authorization.encode()).digest()
    return _self_sign(
        host,
        now,
        [
            (alternative_names([host]), False),
            (x509.UnrecognizedExtension(_ACME_IDENTIFIER, digest), True),
        ],
    )


def make_placeholder(now: float) -> tuple[bytes, bytes]:
    """Return a certificate without host names, and its key; both PEM.

    :param now: in seconds since the epoch.
    """
    return _self_sign(PLACEHOLDER_NAME, now, [])


def _self_sign(
    name: str, now: float, extensions: Sequence[tuple[x509.ExtensionType, bool]]
) -> tuple[bytes, bytes]:
    key = generate_key()
    begin = datetime.fromtimestamp(now, UTC) - BACKDATE
    builder = (
        x509.CertificateBuilder(
            subject_name(name), subject_name(name), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(begin)
        .not_valid_after(begin + _SELF_SIGNED_LIFETIME)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem(key)


@implementer(ICertificateSource)
@frozen
class ACMECache:
    """The folder, as a source of the server's certificate.

    :ivar folder: the folder; created if it is missing.
    :ivar hosts: the host names of the certificate.
    :ivar now: returns the time in seconds since the epoch.
    :ivar authorities: the files with the authorities for client certificates.
    """

    folder: Path
    hosts: Sequence[str]
    now: Callable[[], float]
    authorities: tuple[str, ...] = ()

    def load(self) -> CertificateBundle:
        """Return the certificate, or a self-signed placeholder until there is one.

        :raises CertificateError: if the folder cannot be read or written.
        """
        try:
            self.account_key()
            chain, key = self._load(self.hosts[0]) or make_placeholder(self.now())
        except OSError as error:
            raise CertificateError(_CONFIG_KEY, f"{error.filename}: {error.strerror}") from error
        return CertificateBundle(chain, key, read_authorities(self.authorities))

    def file_versions(self) -> tuple[object, ...]:
        """Return the versions of the certificate and of the authorities."""
        return tuple(map(file_version, (str(self.folder / self.hosts[0]), *self.authorities)))

    def account_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key of the ACME account; create it if it is missing.

        :raises CertificateError: if the file contains something else.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / "acme_account+key"
        if not path.exists():
            replace_file(str(path), key_pem(generate_key()))
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError):
            key = None
        if not (
            isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
        ):
            raise CertificateError(
                _CONFIG_KEY, f"{path}: contains no private key of the curve P-256 in PEM"
            )
        return key

    def renew_at(self) -> float:
        """Return when to order a certificate, in seconds since the epoch; 0 for immediately."""
        loaded = self._load(self.hosts[0])
        if loaded is None:
            return 0.0
        own = x509.load_pem_x509_certificate(loaded[0])
        if not set(self.hosts) <= set(host_names(own)):
            return 0.0
        begin, end = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
        return end - (end - begin) * _RENEW_FRACTION

    def store_certificate(self, chain: bytes, key: bytes) -> None:
        """Store a certificate with its intermediate certificates, and its key; both PEM."""
        replace_file(str(self.folder / self.hosts[0]), key + chain)

    def store_challenge(self, host: str, certificate: bytes, key: bytes) -> None:
        """Store the certificate that answers a challenge for a host, and its key; both PEM."""
        replace_file(str(self._challenge_path(host)), key + certificate)

    def delete_challenge(self, host: str) -> None:
        """Delete the certificate that answers a challenge."""
        self._challenge_path(host).unlink(missing_ok=True)

    def challenge_certificate(self, host: str) -> CertificateBundle | None:
        """Return the certificate that answers a challenge for a host; None without a challenge."""
        if host not in self.hosts:
            return None
        try:
            loaded = self._load(f"{host}+token")
        except OSError:
            return None
        return None if loaded is None else CertificateBundle(*loaded)

    def order_lock(self) -> AbstractContextManager[bool]:
        """Return a context manager that tries to get the lock for ordering, without waiting.

        Its value is False if another process orders.
        """
        return exclusive_lock(str(self.folder / "lock"), wait=False)

    def _challenge_path(self, host: str) -> Path:
        return self.folder / f"{host}+token"

    def _load(self, name: str) -> tuple[bytes, bytes] | None:
        """Return a chain and its key; None if they are missing or malformed."""
        try:
            content = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        key, begin, rest = content.partition(_BEGIN_CERTIFICATE)
        try:
            private = load_pem_private_key(key, None)
            own = x509.load_pem_x509_certificate(begin + rest)
        except (ValueError, TypeError):
            return None
        return (begin + rest, key) if own.public_key() == private.public_key() else None
