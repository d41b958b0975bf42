"""Connections to the store, made without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from attrs import field, frozen
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from twisted_registry.quiet import QuietEndpoint
from twisted_registry.storage.s3.tunnel import TunnelEndpoint

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.internet.protocol import Protocol
    from twisted.internet.tcp import Connection
    from twisted.web.client import URI

    from twisted_registry.storage.s3.proxies import Proxy

#: Bytes that a connection reads at once, and that it holds before it lets a body wait. With
#: Twisted's own 64 KiB a body takes half as much processor time again.
READ_BUFFER_BYTES: Final = 256 * 1024


@implementer(IAgentEndpointFactory)
@frozen
class StoreEndpointFactory:
    """Makes endpoints, for the Agent, once for each of the few hosts that a store has.

    :ivar policy: whom to believe over TLS.
    :ivar timeout: seconds that a connection may take.
    :ivar proxy: what stands in between, if anything does.
    """

    _reactor: Any
    _policy: IPolicyForHTTPS
    _timeout: float
    _proxy: Proxy | None = None
    _made: dict[bytes, IStreamClientEndpoint] = field(init=False, factory=dict)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Answer the endpoint of a URL."""
        # The Agent asks for each request, and checking the name of a host takes a while.
        key = b"%b://%b" % (uri.scheme, uri.netloc)
        if key not in self._made:
            self._made[key] = self._make(uri)
        return self._made[key]

    def _make(self, uri: URI) -> IStreamClientEndpoint:
        host, proxy = uri.host.decode("ascii"), self._proxy
        if proxy is None:
            endpoint = self.direct(host, uri.port)
        else:
            endpoint = TunnelEndpoint(self.direct(proxy.host, proxy.port), proxy, host, uri.port)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return QuietEndpoint(endpoint)

    def direct(self, host: str, port: int) -> IStreamClientEndpoint:
        """Answer an endpoint that nothing stands before."""
        return _LargeBufferEndpoint(HostnameEndpoint(self._reactor, host, port, timeout=self._timeout))


@implementer(IStreamClientEndpoint)
@frozen
class _LargeBufferEndpoint:
    """An endpoint whose connections read and write more at once."""

    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        return self._endpoint.connect(protocolFactory).addCallback(_set_buffer_size)


def _set_buffer_size(protocol: IProtocol) -> IProtocol:
    cast("Connection", cast("Protocol", protocol).transport).bufferSize = READ_BUFFER_BYTES
    return protocol
