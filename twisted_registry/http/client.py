"""HTTP client for other services: an Agent that does not log, and size limits for responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.internet.protocol import Factory
    from twisted.python.failure import Failure
    from twisted.web.client import URI


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
    """Makes endpoints that verify certificates as browsers do."""

    reactor: Any
    connect_timeout_s: float

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return the endpoint of a URL."""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self.reactor, uri.host.decode("ascii"), uri.port, timeout=self.connect_timeout_s
        )
        if uri.scheme == b"https":
            policy = BrowserLikePolicyForHTTPS()
            endpoint = wrapClientTLS(policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return QuietEndpoint(endpoint)


def make_agent(reactor: Any, connect_timeout_s: float) -> IAgent:
    """Return Twisted's Agent, with a new connection for each request.

    :param connect_timeout_s: how long connecting may take.
    """
    agent: IAgent = Agent.usingEndpointFactory(
        reactor, _ClientEndpointFactory(reactor, connect_timeout_s)
    )
    return agent


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
