"""A stream server endpoint that adds TLS to another endpoint: a port, a shared socket, a path."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import define, frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from zope.interface import implementer

from twisted_registry.tls.certificates import peer_certificate
from twisted_registry.tls.interfaces import IClientCertificateTransport
from twisted_registry.tls.socket import PLAIN_HTTP_RESPONSE, TLSConnection

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from twisted_registry.tls.interfaces import ClientCertificate


#: The beginning of a request for a path, without TLS; no TLS record begins with a letter.
_PLAIN_HTTP = re.compile(rb"[A-Z]{3,7} /")


@implementer(IClientCertificateTransport)
class ClientCertificateTransport(BufferingTLSTransport):
    """Twisted's TLS transport with the client certificate, for transports without a socket.

    ``haproxy:`` endpoints have such transports. If the transport is one of Twisted's sockets, a
    :class:`TLSConnection` takes its place, and this object only tells the factory about the end of
    the connection.

    :ivar verifies: whether OpenSSL verifies client certificates. If not, they are ignored.
    """

    verifies = False
    _is_replaced = False
    _has_received = False

    @cached_property
    def certificate(self) -> ClientCertificate | None:
        """The verified certificate of the peer."""
        connection: SSL.Connection | None = self._tlsConnection
        return peer_certificate(connection) if self.verifies and connection is not None else None

    def makeConnection(self, transport: Any) -> None:
        """Run TLS in memory over the transport, or replace it by a TLSConnection on its socket."""
        if not isinstance(transport, Connection) or transport.TLS:
            super().makeConnection(transport)
            return
        self._is_replaced = True
        self.factory.registerProtocol(self)
        protocol = self.wrappedProtocol
        connection_creator = self.factory.connection_creator  # type: ignore[attr-defined]
        connection = SSL.Connection(connection_creator.context, transport.getHandle())
        connection.set_accept_state()
        protocol.makeConnection(
            TLSConnection(connection, transport, protocol, verifies=connection_creator.verifies)
        )

    def dataReceived(self, data: bytes) -> None:
        """Decrypt data; answer a request without TLS."""
        is_first, self._has_received = not self._has_received, True
        if is_first and _PLAIN_HTTP.match(data):
            transport: Any = self.transport
            transport.write(PLAIN_HTTP_RESPONSE)
            transport.loseConnection()
            return
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Notify the protocol, unless the TLSConnection has done so."""
        if self._is_replaced:
            self.factory.unregisterProtocol(self)
        else:
            super().connectionLost(reason)


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class TLSConnectionCreator:
    """Creates OpenSSL connections with the current context; existing ones keep theirs.

    :ivar context: the context of new connections.
    :ivar verifies: whether the context verifies client certificates.
    """

    context: SSL.Context
    verifies: bool = False

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """Return a new connection in memory."""
        if isinstance(protocol, ClientCertificateTransport):
            protocol.verifies = self.verifies
        return SSL.Connection(self.context, None)


class _TLSFactory(TLSMemoryBIOFactory):
    """A factory of :class:`ClientCertificateTransport`.

    :ivar connection_creator: creates the OpenSSL connections.
    """

    protocol = ClientCertificateTransport

    def __init__(
        self, connection_creator: TLSConnectionCreator, factory: IProtocolFactory, reactor: Any
    ) -> None:
        super().__init__(connection_creator, False, factory, reactor)
        self.connection_creator = connection_creator


@implementer(IStreamServerEndpoint)
@frozen(eq=False)
class TLSEndpoint:
    """Listens on another endpoint with TLS.

    :ivar reactor: the reactor.
    :ivar endpoint: the other endpoint.
    :ivar connection_creator: creates the OpenSSL connections.
    """

    _reactor: Any
    _endpoint: IStreamServerEndpoint
    _connection_creator: TLSConnectionCreator

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen on the other endpoint."""
        return self._endpoint.listen(
            _TLSFactory(self._connection_creator, protocolFactory, self._reactor)
        )
