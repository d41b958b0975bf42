"""Connections to the store: endpoints and TLS without verification.

Some stores (Ceph's gateway in its default setup) send the head of a response, and send the body
only after the head was acknowledged. Linux delays acknowledgements by 40 ms to combine them with
data, and a client has none to send. Connections therefore use ``TCP_QUICKACK``.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import field, frozen
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.ssl import CertificateOptions
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from twisted_registry.http.client_proxies import TunnelEndpoint

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.internet.protocol import Factory
    from twisted.web.client import URI

    from twisted_registry.http.client_proxies import Proxy

#: Read buffer, and write buffer limit, of a connection. With Twisted's 64 KiB a body takes half as
#: much processor time again.
READ_BUFFER_BYTES: Final = 256 * 1024
#: Read buffer while a large body arrives. Two such blocks are held for a client that is slower
#: than the store.
_BULK_BUFFER_BYTES: Final = 512 * 1024
#: Socket option of Linux; None elsewhere.
_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)


@implementer(IAgentEndpointFactory)
@frozen
class StoreEndpointFactory:
    """Makes endpoints for the Agent, and keeps one for each host of the store.

    :ivar policy: verifies certificates.
    :ivar connect_timeout_s: maximum time for a connection.
    :ivar proxy: the proxy to tunnel through; None connects directly.
    """

    _reactor: Any
    _policy: IPolicyForHTTPS
    _connect_timeout_s: float
    _proxy: Proxy | None = None
    _endpoints: dict[bytes, IStreamClientEndpoint] = field(init=False, factory=dict)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return the endpoint of a URL."""
        # The Agent calls this for every request, and parsing the host name is slow.
        key = b"%b://%b" % (uri.scheme, uri.netloc)
        if key not in self._endpoints:
            self._endpoints[key] = self._make_endpoint(uri)
        return self._endpoints[key]

    def proxy_endpoint(self, proxy: Proxy) -> IStreamClientEndpoint:
        """Return the endpoint of a proxy that takes whole requests."""
        return StoreEndpoint(self._host_endpoint(proxy.host, proxy.port))

    def _make_endpoint(self, uri: URI) -> IStreamClientEndpoint:
        host, proxy = uri.host.decode("ascii"), self._proxy
        if proxy is None:
            endpoint = self._host_endpoint(host, uri.port)
        else:
            proxy_endpoint = self._host_endpoint(proxy.host, proxy.port)
            endpoint = TunnelEndpoint(proxy_endpoint, proxy, host, uri.port)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return StoreEndpoint(endpoint)

    def _host_endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        return HostnameEndpoint(self._reactor, host, port, timeout=self._connect_timeout_s)


@implementer(IStreamClientEndpoint)
@frozen
class StoreEndpoint:
    """Makes connections with large buffers and quick acknowledgements, without log lines."""

    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        cast("Factory", protocolFactory).noisy = False
        return self._endpoint.connect(protocolFactory).addCallback(tune_connection)


def tune_connection(protocol: Any) -> Any:
    """Set the buffer size of a connected protocol, and acknowledge all that it receives at once.

    :returns: the protocol.
    """
    transport = protocol.transport
    # Over TLS the socket belongs to the transport below.
    connection = getattr(transport, "transport", transport)
    connection.bufferSize = READ_BUFFER_BYTES
    handle = getattr(connection, "socket", None)
    if _QUICKACK is None or not isinstance(handle, socket.socket):
        return protocol
    data_received = protocol.dataReceived

    def receive(data: bytes) -> None:
        data_received(data)
        if len(data) >= READ_BUFFER_BYTES:
            # More will follow, and this much is acknowledged without the option.
            connection.bufferSize = _BULK_BUFFER_BYTES
            return
        connection.bufferSize = READ_BUFFER_BYTES
        # The kernel resets the option after a few packets. The socket may be closed by now.
        with suppress(OSError):
            handle.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    protocol.dataReceived = receive
    return protocol


@implementer(IPolicyForHTTPS)
@frozen
class UnverifiedTLSPolicy:
    """TLS without verification of certificates, for ``skipverify``."""

    _context: SSL.Context = field(factory=lambda: CertificateOptions(verify=False).getContext())

    def creatorForNetloc(self, hostname: bytes, port: int) -> _UnverifiedConnectionCreator:  # noqa: ARG002
        """Return the creator of TLS connections to a host."""
        return _UnverifiedConnectionCreator(self._context, hostname)


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _UnverifiedConnectionCreator:
    context: SSL.Context
    hostname: bytes

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: ARG002
        """Return a connection with SNI and without verification."""
        connection = SSL.Connection(self.context, None)
        name = self.hostname.decode("ascii")
        # RFC 6066 section 3: an address is not a server name.
        if not (isIPAddress(name) or isIPv6Address(name)):
            connection.set_tlsext_host_name(self.hostname)
        return connection
