"""Whose a certificate is, in words.

Certificates and keys in files.

Certificates that we make ourselves, kept in a folder with the authority that vouches for them.

``ca.crt`` and ``ca.key`` are the authority; clients trust it once. Beside them lies a certificate
for each set of hosts that was asked for, with its key: registries with different hosts can share
the authority. Whoever finds something missing, or soon too old, makes it; a lock of the kernel's
keeps two of them from doing so at once. All of this blocks: call it on a thread.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen
from cryptography import x509
from zope.interface import implementer

from twisted_registry.tls.authority import CertificateAuthority, key_pem
from twisted_registry.tls.context import CertificateBundle, CertificateError, ICertificateSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: A certificate that has no more than this should have been replaced: what renews certificates
#: does so with a third of their time left, of those for a week too.
_WARN_BEFORE: Final = timedelta(days=10)
_WARN_FRACTION: Final = 1 / 6


def describe_certificate(certificate: bytes, now: float) -> tuple[str, bool]:
    """One line about a certificate, and whether all is well: it is valid, and goes on to be.

    :param certificate: PEM; the first is meant.
    :param now: seconds since the epoch.
    """
    own = x509.load_pem_x509_certificate(certificate)
    whose = ", ".join(host_names(own)) or own.subject.rfc4514_string() or "nobody"
    begin, end = own.not_valid_before_utc, own.not_valid_after_utc
    moment = datetime.fromtimestamp(now, UTC)
    if moment < begin:
        return f"certificate for {whose} is not valid before {begin:%Y-%m-%d %H:%M} UTC", False
    if moment > end:
        return f"certificate for {whose} is not valid since {end:%Y-%m-%d %H:%M} UTC", False
    until = f"certificate for {whose}, valid until {end:%Y-%m-%d %H:%M} UTC"
    left = end - moment
    if left < min(_WARN_BEFORE, (end - begin) * _WARN_FRACTION):
        return f"{until}: in {_format_duration(left)} clients refuse it", False
    return until, True


def _format_duration(left: timedelta) -> str:
    hours = left // timedelta(hours=1)
    return f"{left.days} days" if left.days > 1 else f"{hours} hours"


def host_names(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return [*found.get_values_for_type(x509.DNSName), *addresses]


@implementer(ICertificateSource)
@frozen
class CertificateFiles:
    """Where they are.

    :ivar certificate: the file with the certificate and those that vouch for it.
    :ivar key: the file with the private key.
    :ivar authorities: files with authorities for clients.
    """

    certificate: str
    key: str
    authorities: tuple[str, ...] = ()

    def read(self) -> CertificateBundle:
        """Read all of them.

        :raises CertificateError: if one can not be read.
        """
        return CertificateBundle(
            read_certificate_file("certificate", self.certificate),
            read_certificate_file("key", self.key),
            tuple((path, read_certificate_file("clientcas", path)) for path in self.authorities),
        )

    def file_versions(self) -> tuple[object, ...]:
        """What tells one version of the files from another, without reading them."""
        return tuple(map(file_version, (self.certificate, self.key, *self.authorities)))


def read_certificate_file(name: str, path: str) -> bytes:
    """What a file holds.

    :param name: the key of ``http.tls`` to blame.
    :raises CertificateError: if it can not be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CertificateError(name, f"{path}: {error.strerror}") from error


def file_version(path: str) -> object:
    """What tells one version of a file from another, without reading it."""
    try:
        found = Path(path).stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def replace_file(path: str, content: bytes, mode: int = 0o600) -> None:
    """Replace a file, so that it is whole whatever happens."""
    new = f"{path}.{token_hex(8)}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - the mode is for the first moment
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.rename(new, path)  # noqa: PTH104 - paths are texts here


#: Seconds before its end at which a certificate is replaced.
_RENEW_BEFORE_S: Final = 30 * 24 * 3600.0
#: Seconds until that is tried again, if it did not succeed.
_RETRY_S: Final = 3600.0


@implementer(ICertificateSource)
@define(eq=False, repr=False)
class AutomaticCertificates:
    """Makes certificates.

    :ivar folder: where they are kept; made if it is missing.
    :ivar hosts: names and addresses of this registry.
    :ivar now: answers the time, in seconds since the epoch.
    :ivar authorities: files with authorities for clients.
    """

    folder: Path
    hosts: Sequence[str]
    now: Callable[[], float]
    authorities: tuple[str, ...] = ()
    _renew_at: float = field(init=False, default=float("inf"))

    def read(self) -> CertificateBundle:
        """The certificate, made if there is none that is good for long enough.

        :raises CertificateError: if there is none and none can be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                self._ensure_certificate()
            return self._certificate_files().read()
        except OSError as error:
            raise CertificateError("auto", f"{error.filename}: {error.strerror}") from error

    def file_versions(self) -> tuple[object, ...]:
        """What changes when the files do, and when it is time for another certificate."""
        overdue = self.now() - self._renew_at
        return (
            *self._certificate_files().file_versions(),
            overdue // _RETRY_S if overdue > 0 else None,
        )

    def _ensure_certificate(self) -> None:
        authority = self._load_or_make_authority()
        files = self._certificate_files()
        end = self._expiry_of(files.certificate, authority)
        if end is None or end - self.now() < _RENEW_BEFORE_S:
            chain, key = authority.issue(self.hosts, self.now())
            # The key first: whoever reads in between finds two that do not fit, and reads again.
            replace_file(files.key, key)
            replace_file(files.certificate, chain)
            end = self._expiry_of(files.certificate, authority)
            assert end is not None
        self._renew_at = max(end - _RENEW_BEFORE_S, self.now() + _RETRY_S)

    def _load_or_make_authority(self) -> CertificateAuthority:
        certificate, key = self.folder / "ca.crt", self.folder / "ca.key"
        if certificate.exists() and key.exists():
            try:
                return CertificateAuthority.load(certificate.read_bytes(), key.read_bytes())
            except (ValueError, TypeError) as error:
                raise CertificateError("auto", f"{certificate}, {key}: {error}") from error
        made = CertificateAuthority.make(f"registry {self.hosts[0]}", self.now())
        replace_file(str(key), key_pem(made.key))
        replace_file(str(certificate), made.pem, 0o644)
        return made

    def _expiry_of(self, path: str, authority: CertificateAuthority) -> float | None:
        """When the certificate ends; None if it is not the right one."""
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - paths are texts here
                found = x509.load_pem_x509_certificate(file.read())
            found.verify_directly_issued_by(authority.certificate)
        except Exception:  # noqa: BLE001 - whatever is wrong, another one is made
            return None
        if sorted(host_names(found)) != sorted(set(self.hosts)):
            return None
        return found.not_valid_after_utc.timestamp()

    def _certificate_files(self) -> CertificateFiles:
        mark = sha256("\n".join(sorted(self.hosts)).encode()).hexdigest()[:16]
        base = f"{self.folder}/{mark}"
        return CertificateFiles(f"{base}.crt", f"{base}.key", self.authorities)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
