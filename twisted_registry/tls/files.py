"""Certificates and keys in files."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen
from zope.interface import implementer

from twisted_registry.tls.material import ISource, Material, MaterialError


@implementer(ISource)
@frozen
class Files:
    """Where they are.

    :ivar certificate: the file with the certificate and those that vouch for it.
    :ivar key: the file with the private key.
    :ivar authorities: files with authorities for clients.
    """

    certificate: str
    key: str
    authorities: tuple[str, ...] = ()

    def read(self) -> Material:
        """Read all of them.

        :raises MaterialError: if one can not be read.
        """
        return Material(
            _content("certificate", self.certificate),
            _content("key", self.key),
            tuple((path, _content("clientcas", path)) for path in self.authorities),
        )

    def marks(self) -> tuple[object, ...]:
        """What tells one version of the files from another, without reading them."""
        return tuple(map(_mark, (self.certificate, self.key, *self.authorities)))


def _content(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise MaterialError(name, f"{path}: {error.strerror}") from error


def _mark(path: str) -> object:
    try:
        found = Path(path).stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
