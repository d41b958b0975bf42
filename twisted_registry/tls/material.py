"""Certificates and keys as bytes, and what is wrong with them."""

from __future__ import annotations

from attrs import field, frozen
from zope.interface import Interface


@frozen
class CertificateBundle:
    """What a server shows, and whom it believes; all of it PEM.

    :ivar certificate: the certificate, then those that vouch for it.
    :ivar key: its private key, never shown in a repr.
    :ivar authorities: certificates of the authorities for clients, by the name of their file.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: tuple[tuple[str, bytes], ...] = ()


class ICertificateSource(Interface):
    """Where certificate, key and authorities come from."""

    def read() -> CertificateBundle:
        """Read them. Blocks.

        :raises CertificateError: if that is not possible.
        """

    def file_versions() -> tuple[object, ...]:
        """What changes when it is time to read them again. Takes a few calls of stat."""


@frozen(eq=False)
class CertificateError(Exception):
    """Certificate, key and authorities can not be used.

    :ivar name: which key of ``http.tls`` is to blame: ``certificate``, ``key``, ``clientcas``.
    :ivar reason: why; one line, never a secret.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"
