"""Connections through a proxy: whole requests are handed to it, or it is made a tunnel for TLS.

Connections to the store, made without a word.

Connections that acknowledge at once what they receive.

Some stores (Ceph's gateway, as it is installed) send the head of an answer, and its body only once
that was acknowledged. Linux keeps an acknowledgement back for 40 ms, to send it along with data of
ours, of which there are none: so each small answer would take that long.

Which proxy stands between us and the store, as the environment says.

The variables are those that Distribution heeds: ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``,
also in lower case. This machine itself is never asked through a proxy.

TLS to whoever answers, for ``skipverify``.
"""

from __future__ import annotations

import socket
from base64 import b64encode
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import field, frozen
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from twisted_registry.http.client import QuietEndpoint
from twisted_registry.storage.s3.address import AddressError

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Generator, Mapping

    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.internet.tcp import Connection
    from twisted.python.failure import Failure
    from twisted.web.client import URI
    from twisted.web.http_headers import Headers
    from twisted.web.iweb import IBodyProducer, IResponse

#: Bytes of an answer to CONNECT.
_MAX_HEAD_BYTES: Final = 16 * 1024


@implementer(IAgent)
@frozen
class ProxyAuthorizationAgent:
    """Shows a proxy who we are, in each request.

    :ivar agent: which sends them to the proxy.
    """

    _agent: IAgent
    _authorization: str

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request."""
        assert headers is not None
        if self._authorization:
            headers = headers.copy()
            headers.setRawHeaders("proxy-authorization", [self._authorization])
        return self._agent.request(method, uri, headers, bodyProducer)


@implementer(IStreamClientEndpoint)
@frozen
class TunnelEndpoint:
    """Connects to a host through a proxy that is asked to ``CONNECT``.

    :ivar endpoint: of the proxy.
    :ivar host: where to; ``port`` likewise.
    """

    _endpoint: IStreamClientEndpoint
    _proxy: Proxy
    _host: str
    _port: int

    @inlineCallbacks
    def connect(
        self, protocolFactory: IProtocolFactory
    ) -> Generator[Deferred[Any], Any, IProtocol]:
        """Connect, and fire when the proxy has let us through.

        :raises ConnectError: if it does not.
        """
        place = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"CONNECT {place}:{self._port} HTTP/1.1", f"Host: {place}:{self._port}"]
        if self._proxy.authorization:
            lines.append(f"Proxy-Authorization: {self._proxy.authorization}")
        tunnel = _TunnelProtocol("\r\n".join([*lines, "", ""]).encode("ascii"), protocolFactory)
        yield self._endpoint.connect(_SingleProtocolFactory(tunnel))
        inner: IProtocol = yield tunnel.established
        return inner


class _SingleProtocolFactory(Factory):
    """Gives away the one protocol that it was made with."""

    noisy = False

    def __init__(self, tunnel: _TunnelProtocol) -> None:
        self._tunnel = tunnel

    def buildProtocol(self, addr: Any) -> Protocol:  # noqa: ARG002
        return self._tunnel


class _TunnelProtocol(Protocol):
    """Asks the proxy, and then passes everything on to a protocol that thinks itself connected.

    :ivar through: fires with that protocol. Cancelling it drops the connection.
    """

    def __init__(self, request: bytes, factory: IProtocolFactory) -> None:
        self.established: Deferred[IProtocol] = Deferred(lambda _: self._drop())
        self._request = request
        self._factory = factory
        self._answer = b""
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        cast("Any", self.transport).write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if end:
            self._answered(head.split(b"\r\n")[0].split(b" ", 2), rest)
        elif len(self._answer) > _MAX_HEAD_BYTES:
            self._refuse("the proxy answers what is no HTTP")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.established.called:
            self.established.errback(ConnectError(string="the proxy has closed the connection"))

    def _answered(self, words: list[bytes], rest: bytes) -> None:
        status = words[1] if len(words) > 1 else b""
        if not status.startswith(b"2"):
            said = b" ".join(words[1:]).decode("latin-1")[:100]
            self._refuse(f"the proxy does not let us through: {said!r}")
            return
        transport = cast("Any", self.transport)
        inner = self._inner = self._factory.buildProtocol(transport.getPeer())
        assert inner is not None
        inner.makeConnection(transport)
        self.established.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _refuse(self, why: str) -> None:
        self._drop()
        if not self.established.called:
            self.established.errback(ConnectError(string=why))

    def _drop(self) -> None:
        cast("Any", self.transport).abortConnection()


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
        return _LargeBufferEndpoint(
            HostnameEndpoint(self._reactor, host, port, timeout=self._timeout)
        )


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


#: Bytes to read at once in the midst of a large body, which saves a ninth of the processor time.
#: Two such pieces are held for a client that is slower than the store.
_BULK_BUFFER_BYTES: Final = 512 * 1024
#: The option of Linux; elsewhere nothing is done.
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


@implementer(IAgentEndpointFactory)
@frozen
class QuickAckEndpointFactory:
    """Makes the connections of another factory prompt."""

    _endpoints: IAgentEndpointFactory

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Answer the endpoint of a URL."""
        return _QuickAckEndpoint(self._endpoints.endpointForURI(uri))


@implementer(IStreamClientEndpoint)
@frozen
class _QuickAckEndpoint:
    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        return self._endpoint.connect(protocolFactory).addCallback(enable_quickack)


def enable_quickack(protocol: Any) -> Any:
    """Let a connected protocol acknowledge all that it receives from now on; and answer it."""
    transport = protocol.transport
    # Over TLS the socket is one layer below.
    connection = getattr(transport, "transport", transport)
    handle = getattr(connection, "socket", None)
    if _QUICKACK is None or not isinstance(handle, socket.socket):
        return protocol
    receive = protocol.dataReceived

    def received(data: bytes) -> None:
        receive(data)
        if len(data) >= READ_BUFFER_BYTES:
            # More is to come, and so much is acknowledged in any case.
            connection.bufferSize = _BULK_BUFFER_BYTES
            return
        connection.bufferSize = READ_BUFFER_BYTES
        # It holds for a few packets only. The socket may be closed by now.
        with suppress(OSError):
            handle.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    protocol.dataReceived = received
    return protocol


_PORTS: Final = {"http": 80, "https": 443}


@frozen
class Proxy:
    """Where it listens, over plain HTTP.

    :ivar authorization: what it wants to see of us, or empty.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)


def find_proxy(environ: Mapping[str, str], scheme: str, netloc: str) -> Proxy | None:
    """Answer the proxy for a host, or None if we go there directly.

    :param scheme: how the host is asked: http or https.
    :param netloc: the host, with a port if it is not the usual one.
    :raises AddressError: if a variable does not name one that we can use.
    """
    name = f"{scheme.upper()}_PROXY"
    value = _variable(environ, name)
    store = urlsplit(f"//{netloc}")
    host, port = store.hostname or "", store.port or _PORTS[scheme]
    if not value or _is_loopback(host) or _is_excluded(_variable(environ, "NO_PROXY"), host, port):
        return None
    url = urlsplit(value if "://" in value else f"http://{value}")
    try:
        if url.scheme == "http" and url.hostname:
            return Proxy(url.hostname, url.port or _PORTS["http"], _authorization(url))
    except ValueError:
        pass
    # Not the value: it may hold a password.
    raise AddressError(f"{name} is no proxy that can be used: http://HOST:PORT is expected")


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.lower()) or "").strip()


def _authorization(url: SplitResult) -> str:
    if url.username is None:
        return ""
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_excluded(rules: str, host: str, port: int) -> bool:
    """Whether a host is on the list: ``*``, names and what is below them, addresses, networks."""
    return any(
        _matches(rule.strip().lower(), host, port) for rule in rules.split(",") if rule.strip()
    )


def _matches(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    try:
        return ip_address(host) in ip_network(rule, strict=False)
    except ValueError:
        pass
    name, colon, wanted = rule.rpartition(":")
    if colon and wanted.isdecimal():
        if int(wanted) != port:
            return False
        rule = name
    name = rule.removeprefix("*").removeprefix(".")
    below = host.endswith(f".{name}")
    return below or (host == name and not rule.startswith(("*", ".")))


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
