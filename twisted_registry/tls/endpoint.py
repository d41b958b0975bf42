"""Listening with TLS on whatever listens without: a port, a shared socket, a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from twisted_registry.tls.transport import ClientCertificateTransport

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory


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

    def __init__(self, connection_creator: TLSConnectionCreator, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(connection_creator, False, factory, reactor)
        self.connection_creator = connection_creator


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """Listens on another endpoint, with TLS."""

    def __init__(self, reactor: Any, endpoint: IStreamServerEndpoint, connection_creator: TLSConnectionCreator) -> None:
        """Take the endpoint, and where connections get their context."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._connection_creator = connection_creator

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """As promised by the interface."""
        return self._endpoint.listen(_TLSFactory(self._connection_creator, protocolFactory, self._reactor))
