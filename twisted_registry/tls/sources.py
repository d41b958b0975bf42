"""Sources of the server's certificate: configured files, or certificates that it issues itself."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen
from cryptography import x509
from zope.interface import implementer

from twisted_registry.storage.files import (
    exclusive_lock,
    file_version,
    make_private_directories,
    replace_file,
)
from twisted_registry.tls.authority import CertificateAuthority, key_pem
from twisted_registry.tls.certificates import host_names
from twisted_registry.tls.interfaces import CertificateBundle, CertificateError, ICertificateSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: How many seconds before its end a certificate is replaced.
_RENEW_BEFORE_S: Final = 30 * 24 * 3600.0
#: Seconds until that is tried again after a failure.
_RETRY_S: Final = 3600.0


def read_certificate_file(name: str, path: str) -> bytes:
    """Return the content of a file.

    :param name: the key of ``http.tls`` to name in the error.
    :raises CertificateError: if the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CertificateError(name, f"{Path(path).absolute()}: {error.strerror}") from error


def read_authorities(paths: Iterable[str]) -> tuple[tuple[str, bytes], ...]:
    """Return the authorities for client certificates: name and content of each file.

    :raises CertificateError: if a file cannot be read.
    """
    return tuple((path, read_certificate_file("clientcas", path)) for path in paths)


@implementer(ICertificateSource)
@frozen
class CertificateFiles:
    """Certificate and key in files.

    :ivar certificate: the file with the certificate and its intermediate certificates.
    :ivar key: the file with the private key.
    :ivar authorities: the files with the authorities for client certificates.
    """

    certificate: str
    key: str
    authorities: tuple[str, ...] = ()

    def load(self) -> CertificateBundle:
        """Read all files.

        :raises CertificateError: if one cannot be read.
        """
        return CertificateBundle(
            read_certificate_file("certificate", self.certificate),
            read_certificate_file("key", self.key),
            read_authorities(self.authorities),
        )

    def file_versions(self) -> tuple[object, ...]:
        """Return the versions of the files."""
        return tuple(map(file_version, (self.certificate, self.key, *self.authorities)))


@implementer(ICertificateSource)
@define(eq=False, repr=False)
class AutomaticCertificates:
    """Certificates that the registry issues itself, in a folder with their authority.

    ``ca.crt`` and ``ca.key`` are the authority, which clients have to trust once. The folder also
    has a certificate and a key for each set of hosts, so that registries with different hosts can
    share the authority. A missing or expiring file is created by the first process that notices;
    a lock makes the others wait.

    :ivar folder: the folder; created if it is missing.
    :ivar hosts: the host names and IP addresses of the registry.
    :ivar now: returns the time in seconds since the epoch.
    :ivar authorities: the files with the authorities for client certificates.
    """

    folder: Path
    hosts: Sequence[str]
    now: Callable[[], float]
    authorities: tuple[str, ...] = ()
    _renew_at: float = field(init=False, default=float("inf"))

    def load(self) -> CertificateBundle:
        """Return the certificate; issue one first if there is none that is valid long enough.

        :raises CertificateError: if there is none and none can be issued.
        """
        try:
            make_private_directories(self.folder)
            with exclusive_lock(str(self.folder / "lock")):
                self._ensure_certificate()
            return self._certificate_files().load()
        except OSError as error:
            raise CertificateError("auto", f"{error.filename}: {error.strerror}") from error

    def file_versions(self) -> tuple[object, ...]:
        """Return the versions of the files; changes also when the certificate has to be renewed."""
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
            # A process that reads between the two calls finds that they do not match, and reads
            # again when the second file has changed.
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
        authority = CertificateAuthority.make(f"registry {self.hosts[0]}", self.now())
        replace_file(str(key), key_pem(authority.key))
        replace_file(str(certificate), authority.pem, 0o644)
        return authority

    def _expiry_of(self, path: str, authority: CertificateAuthority) -> float | None:
        """Return when the certificate expires; None if it is missing or not the right one."""
        try:
            certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
            certificate.verify_directly_issued_by(authority.certificate)
        except Exception:  # noqa: BLE001 - after any error a new certificate is issued
            return None
        if sorted(host_names(certificate)) != sorted(set(self.hosts)):
            return None
        return certificate.not_valid_after_utc.timestamp()

    def _certificate_files(self) -> CertificateFiles:
        digest = sha256("\n".join(sorted(self.hosts)).encode()).hexdigest()[:16]
        base = f"{self.folder}/{digest}"
        return CertificateFiles(f"{base}.crt", f"{base}.key", self.authorities)
