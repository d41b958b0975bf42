"""Connections through a proxy: whole requests are handed to it, or it is made a tunnel for TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from attrs import frozen
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.web.iweb import IAgent
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Generator

    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.python.failure import Failure
    from twisted.web.http_headers import Headers
    from twisted.web.iweb import IBodyProducer, IResponse

    from twisted_registry.storage.s3.proxies import Proxy

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
