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

from twisted_registry.tls.authority import Authority, key_pem
from twisted_registry.tls.files import Files, replace
from twisted_registry.tls.material import ISource, Material, MaterialError
from twisted_registry.tls.subject import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

#: Seconds before its end at which a certificate is replaced.
_RENEWED: Final = 30 * 24 * 3600.0
#: Seconds until that is tried again, if it did not succeed.
_AGAIN: Final = 3600.0


@implementer(ISource)
@define(eq=False, repr=False)
class Automatic:
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
    _due: float = field(init=False, default=float("inf"))

    def read(self) -> Material:
        """The certificate, made if there is none that is good for long enough.

        :raises MaterialError: if there is none and none can be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                self._ensure()
            return self._files().read()
        except OSError as error:
            raise MaterialError("auto", f"{error.filename}: {error.strerror}") from error

    def marks(self) -> tuple[object, ...]:
        """What changes when the files do, and when it is time for another certificate."""
        overdue = self.now() - self._due
        return (*self._files().marks(), overdue // _AGAIN if overdue > 0 else None)

    def _ensure(self) -> None:
        authority = self._authority()
        files = self._files()
        end = self._end_of(files.certificate, authority)
        if end is None or end - self.now() < _RENEWED:
            chain, key = authority.issue(self.hosts, self.now())
            # The key first: whoever reads in between finds two that do not fit, and reads again.
            replace(files.key, key)
            replace(files.certificate, chain)
            end = self._end_of(files.certificate, authority)
            assert end is not None
        self._due = max(end - _RENEWED, self.now() + _AGAIN)

    def _authority(self) -> Authority:
        certificate, key = self.folder / "ca.crt", self.folder / "ca.key"
        if certificate.exists() and key.exists():
            try:
                return Authority.load(certificate.read_bytes(), key.read_bytes())
            except (ValueError, TypeError) as error:
                raise MaterialError("auto", f"{certificate}, {key}: {error}") from error
        made = Authority.make(f"registry {self.hosts[0]}", self.now())
        replace(str(key), key_pem(made.key))
        replace(str(certificate), made.pem, 0o644)
        return made

    def _end_of(self, path: str, authority: Authority) -> float | None:
        """When the certificate ends; None if it is not the right one."""
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - paths are texts here
                found = x509.load_pem_x509_certificate(file.read())
            found.verify_directly_issued_by(authority.certificate)
        except Exception:  # noqa: BLE001 - whatever is wrong, another one is made
            return None
        if sorted(names(found)) != sorted(set(self.hosts)):
            return None
        return found.not_valid_after_utc.timestamp()

    def _files(self) -> Files:
        mark = sha256("\n".join(sorted(self.hosts)).encode()).hexdigest()[:16]
        base = f"{self.folder}/{mark}"
        return Files(f"{base}.crt", f"{base}.key", self.authorities)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
