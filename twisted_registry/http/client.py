"""HTTP client for other services: an Agent that does not log, proxies, and limits for responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, ProxyAgent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from twisted_registry.http.client_proxies import (
    ProxyAuthorizationAgent,
    TunnelEndpoint,
    find_proxy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.internet.protocol import Factory
    from twisted.python.failure import Failure
    from twisted.web.client import URI
    from twisted.web.http_headers import Headers
    from twisted.web.iweb import IBodyProducer, IResponse

    from twisted_registry.http.client_proxies import Proxy


@implementer(IStreamClientEndpoint)
@frozen
class QuietEndpoint:
    """An endpoint that sets ``noisy`` of factories to False: they do not log start and stop."""

    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        cast("Factory", protocolFactory).noisy = False
        return self._endpoint.connect(protocolFactory)


@implementer(IAgentEndpointFactory)
@frozen
class _ClientEndpointFactory:
    """Makes endpoints that verify certificates as browsers do.

    :ivar proxy: the proxy to tunnel through; None connects directly.
    """

    reactor: Any
    connect_timeout_s: float
    proxy: Proxy | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return the endpoint of a URL."""
        host, proxy = uri.host.decode("ascii"), self.proxy
        if proxy is None:
            endpoint = self.host_endpoint(host, uri.port)
        else:
            proxy_endpoint = self.host_endpoint(proxy.host, proxy.port)
            endpoint = TunnelEndpoint(proxy_endpoint, proxy, host, uri.port)
        if uri.scheme == b"https":
            policy = BrowserLikePolicyForHTTPS()
            endpoint = wrapClientTLS(policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return QuietEndpoint(endpoint)

    def host_endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        """Return the endpoint of a host."""
        return HostnameEndpoint(self.reactor, host, port, timeout=self.connect_timeout_s)


def make_agent(
    reactor: Any, connect_timeout_s: float, environ: Mapping[str, str] | None = None
) -> IAgent:
    """Return Twisted's Agent, with a new connection for each request.

    :param connect_timeout_s: how long connecting may take.
    :param environ: environment variables that may name a proxy; None for no proxy.
    """
    endpoints = _ClientEndpointFactory(reactor, connect_timeout_s)
    agent: IAgent = Agent.usingEndpointFactory(reactor, endpoints)
    return agent if environ is None else _ProxyChoosingAgent(reactor, agent, endpoints, environ)


@implementer(IAgent)
@frozen
class _ProxyChoosingAgent:
    """Sends each request through the proxy of its URL, if variables name one.

    :ivar direct: sends requests without a proxy.
    :ivar endpoints: make connections, also to proxies.
    """

    reactor: Any
    direct: IAgent
    endpoints: _ClientEndpointFactory
    environ: Mapping[str, str] = field(repr=False)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request."""
        url = urlsplit(uri.decode("ascii"))
        proxy = find_proxy(self.environ, url.scheme, url.netloc)
        if proxy is None:
            agent = self.direct
        elif proxy.tunnels:
            agent = Agent.usingEndpointFactory(self.reactor, evolve(self.endpoints, proxy=proxy))
        else:
            endpoint = QuietEndpoint(self.endpoints.host_endpoint(proxy.host, proxy.port))
            agent = ProxyAuthorizationAgent(ProxyAgent(endpoint, self.reactor), proxy.authorization)
        return agent.request(method, uri, headers, bodyProducer)


def describe_error(error: Any) -> str:
    """Return why a request has failed, in one line without its URL, which may contain a secret."""
    while getattr(error, "reasons", None):  # Twisted's Agent wraps failures
        error = error.reasons[0].value
    details = error.args[0] if error.args else None
    if isinstance(details, list):  # of OpenSSL: library, function and reason of each error
        text = "; ".join(str(each[-1]) for each in details)
    else:
        text = " ".join(str(error).split())
    return text or type(error).__name__


class BodyTooLong(Exception):
    """The body of a response is longer than the limit, which the message contains."""


async def read_limited_body(response: Any, limit: int) -> bytes:
    """Read the body of a response. Cancelling closes the connection.

    :param response: an IResponse, or a response of treq to a request with ``unbuffered``; its body
        has not been read.
    :param limit: bytes.
    :raises BodyTooLong: if the body is longer; the connection is closed.
    """
    protocol = _LimitedBodyProtocol(limit)
    response.deliverBody(protocol)
    return await protocol.done


@define(eq=False)
class _LimitedBodyProtocol(Protocol):
    """Collects a body up to a limit."""

    limit: int
    done: Deferred[bytes] = field(init=False)
    _pieces: list[bytes] = field(init=False, factory=list)
    _length: int = field(init=False, default=0)

    @done.default
    def _make_done(self) -> Deferred[bytes]:
        return Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        """Collect a piece."""
        self._length += len(data)
        if self._length > self.limit:
            self._abort()
        else:
            self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fire ``done`` at the end of the body."""
        if self.done.called:
            return
        if self._length > self.limit:
            self.done.errback(BodyTooLong(f"it is longer than {self.limit} bytes"))
        elif reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.stopProducing()  # the transport of a body has no abortConnection
