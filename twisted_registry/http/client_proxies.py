"""Proxies for requests to other services.

The variables are those of Distribution: ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``, in upper
or lower case. Loopback addresses never use a proxy. Requests to ``http`` URLs are sent to the proxy
as a whole; ``https`` uses a tunnel (CONNECT, RFC 9110 section 9.3.6).
"""

from __future__ import annotations

from base64 import b64encode
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.python.failure import Failure
    from twisted.web.iweb import IBodyProducer, IResponse

#: Ports of URLs without one.
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: Maximum size of the response head to CONNECT.
_MAX_HEAD_BYTES: Final = 16 * 1024


class ProxyInvalid(ValueError):
    """A variable is not a supported proxy; the text names it."""


@frozen
class Proxy:
    """An HTTP proxy, which is reached without TLS.

    :ivar authorization: value of ``Proxy-Authorization``, or empty.
    :ivar tunnels: whether to use CONNECT, for ``https``, or to send whole requests.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)
    tunnels: bool = True


def find_proxy(environ: Mapping[str, str], scheme: str, netloc: str) -> Proxy | None:
    """Return the proxy for a host, or None to connect directly.

    :param scheme: of the URLs: http or https.
    :param netloc: the host, with the port unless it is the default of the scheme.
    :raises ProxyInvalid: if the value of a variable is not a supported proxy.
    """
    variable = f"{scheme.upper()}_PROXY"
    value = _variable(environ, variable)
    target = urlsplit(f"//{netloc}")
    host, port = target.hostname or "", target.port or DEFAULT_PORTS[scheme]
    if not value or _is_loopback(host) or _is_excluded(_variable(environ, "NO_PROXY"), host, port):
        return None
    url = urlsplit(value if "://" in value else f"http://{value}")
    try:
        if url.scheme == "http" and url.hostname:
            return Proxy(
                url.hostname,
                url.port or DEFAULT_PORTS["http"],
                _basic_authorization(url),
                tunnels=scheme == "https",
            )
    except ValueError:
        pass
    # The message omits the value, which may contain a password.
    raise ProxyInvalid(f"{variable} is not a supported proxy URL: expected http://HOST:PORT")


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.lower()) or "").strip()


def _basic_authorization(url: SplitResult) -> str:
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
    """Return whether a rule of ``NO_PROXY`` matches: ``*``, a domain, an address or a network."""
    return any(
        _rule_matches(rule.strip().lower(), host, port) for rule in rules.split(",") if rule.strip()
    )


def _rule_matches(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    try:
        return ip_address(host) in ip_network(rule, strict=False)
    except ValueError:
        pass
    name, colon, rule_port = rule.rpartition(":")
    if colon and rule_port.isdecimal():
        if int(rule_port) != port:
            return False
        rule = name
    name = rule.removeprefix("*").removeprefix(".")
    is_subdomain = host.endswith(f".{name}")
    return is_subdomain or (host == name and not rule.startswith(("*", ".")))


@implementer(IAgent)
@frozen
class ProxyAuthorizationAgent:
    """Adds the credentials of the proxy to every request.

    :ivar agent: sends the requests to the proxy.
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
        if self._authorization:
            headers = Headers() if headers is None else headers.copy()
            headers.setRawHeaders("proxy-authorization", [self._authorization])
        return self._agent.request(method, uri, headers, bodyProducer)


@implementer(IStreamClientEndpoint)
@frozen
class TunnelEndpoint:
    """Connects to a host through a proxy with ``CONNECT``.

    :ivar endpoint: endpoint of the proxy.
    :ivar host: host to connect to.
    :ivar port: port to connect to.
    """

    _endpoint: IStreamClientEndpoint
    _proxy: Proxy
    _host: str
    _port: int

    @inlineCallbacks
    def connect(
        self, protocolFactory: IProtocolFactory
    ) -> Generator[Deferred[Any], Any, IProtocol]:
        """Connect, and fire when the tunnel is established.

        :raises ConnectError: if the proxy refuses.
        """
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"CONNECT {host}:{self._port} HTTP/1.1", f"Host: {host}:{self._port}"]
        if self._proxy.authorization:
            lines.append(f"Proxy-Authorization: {self._proxy.authorization}")
        request = "\r\n".join([*lines, "", ""]).encode("ascii")
        tunnel = _TunnelProtocol(request, protocolFactory)
        factory = Factory.forProtocol(lambda: tunnel)
        factory.noisy = False
        yield self._endpoint.connect(factory)
        inner: IProtocol = yield tunnel.established
        return inner


@define(eq=False)
class _TunnelProtocol(Protocol):
    """Sends CONNECT to a proxy, and then passes all data to the inner protocol.

    :ivar request: the CONNECT request.
    :ivar inner_factory: makes the inner protocol.
    :ivar established: fires with the inner protocol. Cancelling it drops the connection.
    """

    _request: bytes
    _inner_factory: IProtocolFactory
    established: Deferred[IProtocol] = field(init=False)
    _response: bytes = field(init=False, default=b"")
    _inner: IProtocol | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.established = Deferred(lambda _: self._drop_connection())

    def connectionMade(self) -> None:
        cast("Any", self.transport).write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._response += data
        head, end, rest = self._response.partition(b"\r\n\r\n")
        if end:
            self._head_received(head.split(b"\r\n")[0].split(b" ", 2), rest)
        elif len(self._response) > _MAX_HEAD_BYTES:
            self._fail("the proxy does not answer with HTTP")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.established.called:
            self.established.errback(ConnectError(string="the proxy closed the connection"))

    def _head_received(self, status_line: list[bytes], rest: bytes) -> None:
        status = status_line[1] if len(status_line) > 1 else b""
        if not status.startswith(b"2"):
            reason = b" ".join(status_line[1:]).decode("latin-1")[:100]
            self._fail(f"the proxy refuses the connection: {reason!r}")
            return
        transport = cast("Any", self.transport)
        inner = self._inner = self._inner_factory.buildProtocol(transport.getPeer())
        assert inner is not None
        inner.makeConnection(transport)
        self.established.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _fail(self, message: str) -> None:
        self._drop_connection()
        if not self.established.called:
            self.established.errback(ConnectError(string=message))

    def _drop_connection(self) -> None:
        cast("Any", self.transport).abortConnection()
