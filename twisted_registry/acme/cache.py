"""Account, certificate and open challenges in a folder.

Names and contents are those of golang.org/x/crypto/acme/autocert: the folder that Distribution
calls ``cachefile`` can be taken over as it is, and given back. One certificate is for all hosts,
and has the name of the first. All processes that share the folder answer challenges and show the
certificate; a lock of the kernel's lets one of them order at a time. All of this blocks.

Certificates that nobody vouches for: what proves that a host is ours, and what waits.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from zope.interface import implementer

from twisted_registry.tls.authority import alternative_names, generate_key, key_pem, subject_name
from twisted_registry.tls.context import CertificateBundle, CertificateError, ICertificateSource
from twisted_registry.tls.sources import (
    file_version,
    host_names,
    read_certificate_file,
    replace_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

#: ``id-pe-acmeIdentifier`` (RFC 8737, section 3).
_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
#: The head of 32 bytes in DER.
_OCTETS_32: Final = b"\x04\x20"
#: What clients see that come before there is a certificate.
PLACEHOLDER_NAME: Final = "waiting for a certificate"
_SELF_SIGNED_LIFETIME: Final = timedelta(days=7)
#: The clocks of others may be late.
_BACKDATE: Final = timedelta(hours=1)


def make_challenge_certificate(host: str, authorization: str, now: float) -> tuple[bytes, bytes]:
    """The certificate that answers a challenge for a host, and its key; both PEM.

    :param authorization: the key authorization (RFC 8555, section 8.1).
    :param now: seconds since the epoch.
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
    """The certificate until there is one, which is for no host, and its key; both PEM.

    :param now: seconds since the epoch.
    """
    return _self_sign(PLACEHOLDER_NAME, now, [])


def _self_sign(
    name: str, now: float, extensions: Sequence[tuple[x509.ExtensionType, bool]]
) -> tuple[bytes, bytes]:
    key = generate_key()
    begin = datetime.fromtimestamp(now, UTC) - _BACKDATE
    builder = (
        x509.CertificateBuilder(
            subject_name(name), subject_name(name), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(begin)
        .not_valid_after(begin + _SELF_SIGNED_LIFETIME)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM), key_pem(key)


_CONFIG_KEY: Final = "letsencrypt.cachefile"
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
#: Which part of its time a certificate has left when it is replaced: 30 days of 90.
_RENEW_FRACTION: Final = 1 / 3


@implementer(ICertificateSource)
@frozen
class ACMECache:
    """The folder.

    :ivar folder: made if it is missing.
    :ivar hosts: the names that the certificate is for.
    :ivar now: answers the time, in seconds since the epoch.
    :ivar authorities: files with authorities for clients.
    """

    folder: Path
    hosts: Sequence[str]
    now: Callable[[], float]
    authorities: tuple[str, ...] = ()

    def read(self) -> CertificateBundle:
        """The certificate, or one that nobody vouches for until there is one.

        :raises CertificateError: if that can not be read, or nothing could be kept here.
        """
        try:
            self.account_key()
            chain, key = self._load(self.hosts[0]) or make_placeholder(self.now())
        except OSError as error:
            raise CertificateError(_CONFIG_KEY, f"{error.filename}: {error.strerror}") from error
        authorities = tuple(
            (path, read_certificate_file("clientcas", path)) for path in self.authorities
        )
        return CertificateBundle(chain, key, authorities)

    def file_versions(self) -> tuple[object, ...]:
        """What changes when the files do."""
        return tuple(map(file_version, (str(self.folder / self.hosts[0]), *self.authorities)))

    def account_key(self) -> ec.EllipticCurvePrivateKey:
        """The key that certificates are ordered with, made if there is none.

        :raises CertificateError: if there is something else in its place.
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
                _CONFIG_KEY, f"{path}: holds no private key of the curve P-256 in PEM"
            )
        return key

    def renew_at(self) -> float:
        """When it is time for another certificate, in seconds since the epoch; 0 if none fits."""
        found = self._load(self.hosts[0])
        if found is None:
            return 0.0
        own = x509.load_pem_x509_certificate(found[0])
        if not set(self.hosts) <= set(host_names(own)):
            return 0.0
        begin, end = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
        return end - (end - begin) * _RENEW_FRACTION

    def store_certificate(self, chain: bytes, key: bytes) -> None:
        """Show a certificate from now on; it comes with those that vouch for it, both PEM."""
        replace_file(str(self.folder / self.hosts[0]), key + chain)

    def answer(self, host: str, certificate: bytes, key: bytes) -> None:
        """Show a certificate to whoever comes to see whether the host is ours."""
        replace_file(str(self._challenge_path(host)), key + certificate)

    def delete_challenge(self, host: str) -> None:
        """Answer no more."""
        self._challenge_path(host).unlink(missing_ok=True)

    def challenge_certificate(self, host: str) -> CertificateBundle | None:
        """What to show to who asks whether the host is ours; None if nothing was ordered."""
        if host not in self.hosts:
            return None
        try:
            found = self._load(f"{host}+token")
        except OSError:
            return None
        return None if found is None else CertificateBundle(*found)

    @contextmanager
    def order_lock(self) -> Iterator[bool]:
        """Whether nobody else orders; if so, nobody does in this block."""
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def _challenge_path(self, host: str) -> Path:
        return self.folder / f"{host}+token"

    def _load(self, name: str) -> tuple[bytes, bytes] | None:
        """A chain and its key; None if they are not there, or broken: then others are made."""
        try:
            content = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        key, begin, rest = content.partition(_BEGIN)
        try:
            private = load_pem_private_key(key, None)
            own = x509.load_pem_x509_certificate(begin + rest)
        except (ValueError, TypeError):
            return None
        return (begin + rest, key) if own.public_key() == private.public_key() else None
