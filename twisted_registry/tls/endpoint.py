"""Listening with TLS on whatever listens without: a port, a shared socket, a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from twisted_registry.tls.transport import CertifiedTransport

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class Switch:
    """Gives every new connection the context of the moment; those that are there keep theirs.

    :ivar context: of the next connections.
    :ivar verifies: whether it verifies what clients show.
    """

    context: SSL.Context
    verifies: bool = False

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """As promised by the interface."""
        if isinstance(protocol, CertifiedTransport):
            protocol.verifies = self.verifies
        return SSL.Connection(self.context, None)


class _Factory(TLSMemoryBIOFactory):
    """As Twisted's, of transports that know whose certificate they were shown.

    :ivar switch: where connections get their context.
    """

    protocol = CertifiedTransport

    def __init__(self, switch: Switch, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(switch, False, factory, reactor)
        self.switch = switch


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """Listens on another endpoint, with TLS."""

    def __init__(self, reactor: Any, endpoint: IStreamServerEndpoint, switch: Switch) -> None:
        """Take the endpoint, and where connections get their context."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._switch = switch

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """As promised by the interface."""
        return self._endpoint.listen(_Factory(self._switch, protocolFactory, self._reactor))
