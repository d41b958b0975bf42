"""Listening with TLS on whatever listens without: a port, a shared socket, a path.

A connection over TLS that knows whose certificate its peer has shown.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import define
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from zope.interface import implementer

from twisted_registry.tls.interfaces import IClientCertificateTransport
from twisted_registry.tls.socket import TLSConnection, peer_certificate

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from twisted_registry.tls.interfaces import ClientCertificate


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


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class TLSConnectionCreator:
    """Gives every new connection the context of the moment; those that are there keep theirs.

    :ivar context: of the next connections.
    :ivar verifies: whether it verifies what clients show.
    """

    context: SSL.Context
    verifies: bool = False

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """As promised by the interface."""
        if isinstance(protocol, ClientCertificateTransport):
            protocol.verifies = self.verifies
        return SSL.Connection(self.context, None)


class _TLSFactory(TLSMemoryBIOFactory):
    """As Twisted's, of transports that know whose certificate they were shown.

    :ivar switch: where connections get their context.
    """

    protocol = ClientCertificateTransport

    def __init__(
        self, connection_creator: TLSConnectionCreator, factory: IProtocolFactory, reactor: Any
    ) -> None:
        super().__init__(connection_creator, False, factory, reactor)
        self.connection_creator = connection_creator


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """Listens on another endpoint, with TLS."""

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamServerEndpoint,
        connection_creator: TLSConnectionCreator,
    ) -> None:
        """Take the endpoint, and where connections get their context."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._connection_creator = connection_creator

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """As promised by the interface."""
        return self._endpoint.listen(
            _TLSFactory(self._connection_creator, protocolFactory, self._reactor)
        )
