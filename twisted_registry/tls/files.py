"""Certificates and keys in files."""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex

from attrs import frozen
from zope.interface import implementer

from twisted_registry.tls.material import ICertificateSource, CertificateBundle, CertificateError


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
