"""Interfaces and values of TLS: certificates and their sources.

Importing this module imports no OpenSSL.
"""

from __future__ import annotations

from attrs import field, frozen
from zope.interface import Attribute, Interface

# The methods of a zope.interface Interface have no self.


@frozen
class CertificateBundle:
    """The certificates and the key of a server, all in PEM.

    :ivar certificate: the certificate, followed by its intermediate certificates.
    :ivar key: the private key; not part of the repr.
    :ivar authorities: the authorities for client certificates: name and content of each file.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: tuple[tuple[str, bytes], ...] = ()


@frozen(eq=False)
class CertificateError(Exception):
    """Certificate, key or authorities cannot be used.

    :ivar name: the faulty key of ``http.tls``: ``certificate``, ``key``, ``clientcas``.
    :ivar reason: one line; contains no secret.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class ICertificateSource(Interface):
    """Provides certificate, key and authorities."""

    def load() -> CertificateBundle:
        """Return the current bundle. Blocks.

        :raises CertificateError: if it cannot be read or created.
        """

    def file_versions() -> tuple[object, ...]:
        """Return a value that changes when the bundle must be loaded again.

        It takes a few calls of ``stat``.
        """


@frozen
class ClientCertificate:
    """The content of a verified client certificate.

    :ivar subject: the distinguished name (RFC 4514): ``CN=ci,O=Example``.
    :ivar cn: the common names of the subject.
    :ivar organizations: the organizations of the subject.
    :ivar dns: the host names among the alternative names (RFC 5280 section 4.2.1.6).
    :ivar email: the e-mail addresses among them.
    :ivar uri: the URIs among them, for example the SPIFFE ID of a workload.
    """

    subject: str
    cn: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()


class IClientCertificateTransport(Interface):
    """A transport that knows the client certificate of its peer."""

    certificate: ClientCertificate | None = Attribute(
        "The verified certificate of the peer after the handshake; None if there is none."
    )
