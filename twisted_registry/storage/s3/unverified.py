"""TLS to whoever answers, for ``skipverify``."""

from __future__ import annotations

from attrs import field, frozen
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _UnverifiedConnectionCreator:
    context: SSL.Context
    hostname: bytes

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: ARG002
        """Answer a connection that names the host, and checks nothing."""
        connection = SSL.Connection(self.context, None)
        name = self.hostname.decode("ascii")
        # RFC 6066 section 3: an address is no name.
        if not (isIPAddress(name) or isIPv6Address(name)):
            connection.set_tlsext_host_name(self.hostname)
        return connection


@implementer(IPolicyForHTTPS)
@frozen
class UnverifiedTLSPolicy:
    """Encrypts, and does not ask who the peer is."""

    _context: SSL.Context = field(factory=lambda: CertificateOptions(verify=False).getContext())

    def creatorForNetloc(self, hostname: bytes, port: int) -> _UnverifiedConnectionCreator:  # noqa: ARG002
        """Answer what makes connections to a host."""
        return _UnverifiedConnectionCreator(self._context, hostname)
