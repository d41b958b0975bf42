"""A connection over TLS that knows whose certificate its peer has shown."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport
from zope.interface import implementer

from twisted_registry.auth.clientcertificate import ICertified
from twisted_registry.tls.connection import SecureConnection
from twisted_registry.tls.shown import shown_by

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from twisted_registry.auth.clientcertificate import ClientCertificate


@implementer(ICertified)
class CertifiedTransport(BufferingTLSTransport):
    """As Twisted's, over transports that are no sockets.

    A socket of Twisted's own is not wrapped: :class:`SecureConnection` takes its place.

    :ivar verifies: whether OpenSSL has verified what was shown; otherwise nothing is said of it.
    """

    verifies = False
    _direct = False

    @cached_property
    def certificate(self) -> ClientCertificate | None:
        """As promised by :class:`ICertified`."""
        connection: SSL.Connection | None = self._tlsConnection
        return shown_by(connection) if self.verifies and connection is not None else None

    def makeConnection(self, transport: Any) -> None:
        """Choose between the two."""
        if not isinstance(transport, Connection) or transport.TLS:
            super().makeConnection(transport)
            return
        self._direct = True
        self.factory.registerProtocol(self)
        protocol = self.wrappedProtocol
        switch = self.factory.switch  # type: ignore[attr-defined]
        connection = SSL.Connection(switch.context, transport.getHandle())
        connection.set_accept_state()
        protocol.makeConnection(
            SecureConnection(connection, transport, protocol, verifies=switch.verifies)
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass it on, if nobody else has."""
        if self._direct:
            self.factory.unregisterProtocol(self)
        else:
            super().connectionLost(reason)
