"""A connection over TLS that knows whose certificate its peer has shown."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport
from zope.interface import implementer

from twisted_registry.auth.clientcertificate import IClientCertificateTransport
from twisted_registry.tls.connection import TLSConnection
from twisted_registry.tls.shown import peer_certificate

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from twisted_registry.auth.clientcertificate import ClientCertificate


@implementer(IClientCertificateTransport)
class ClientCertificateTransport(BufferingTLSTransport):
    """As Twisted's, over transports that are no sockets.

    A socket of Twisted's own is not wrapped: :class:`TLSConnection` takes its place.

    :ivar verifies: whether OpenSSL has verified what was shown; otherwise nothing is said of it.
    """

    verifies = False
    _on_socket = False

    @cached_property
    def certificate(self) -> ClientCertificate | None:
        """As promised by :class:`IClientCertificateTransport`."""
        connection: SSL.Connection | None = self._tlsConnection
        return peer_certificate(connection) if self.verifies and connection is not None else None

    def makeConnection(self, transport: Any) -> None:
        """Choose between the two."""
        if not isinstance(transport, Connection) or transport.TLS:
            super().makeConnection(transport)
            return
        self._on_socket = True
        self.factory.registerProtocol(self)
        protocol = self.wrappedProtocol
        connection_creator = self.factory.connection_creator  # type: ignore[attr-defined]
        connection = SSL.Connection(connection_creator.context, transport.getHandle())
        connection.set_accept_state()
        protocol.makeConnection(
            TLSConnection(connection, transport, protocol, verifies=connection_creator.verifies)
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass it on, if nobody else has."""
        if self._on_socket:
            self.factory.unregisterProtocol(self)
        else:
            super().connectionLost(reason)
