"""Certificates that we make ourselves, kept in a folder with the authority that vouches for them.

``ca.crt`` and ``ca.key`` are the authority; clients trust it once. Beside them lies a certificate
for each set of hosts that was asked for, with its key: registries with different hosts can share
the authority. Whoever finds something missing, or soon too old, makes it; a lock of the kernel's
keeps two of them from doing so at once. All of this blocks: call it on a thread.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from attrs import define, field
from cryptography import x509
from zope.interface import implementer

from twisted_registry.tls.authority import CertificateAuthority, key_pem
from twisted_registry.tls.files import CertificateFiles, replace_file
from twisted_registry.tls.material import ICertificateSource, CertificateBundle, CertificateError
from twisted_registry.tls.subject import host_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

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
        return (*self._certificate_files().file_versions(), overdue // _RETRY_S if overdue > 0 else None)

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
