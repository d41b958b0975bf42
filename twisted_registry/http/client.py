"""Connections to other servers, made without a word: Twisted logs two lines for each.

Bodies of answers that have to be short: kept in memory, and never more of one than is sane.
"""

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
    """An endpoint whose factories do not tell the log that they start and stop."""

    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        cast("Factory", protocolFactory).noisy = False
        return self._endpoint.connect(protocolFactory)


@implementer(IAgentEndpointFactory)
@frozen
class _ClientEndpointFactory:
    """Makes endpoints that check certificates as browsers do."""

    reactor: Any
    connect_timeout_s: float

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Answer the endpoint of a URL."""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self.reactor, uri.host.decode("ascii"), uri.port, timeout=self.connect_timeout_s
        )
        if uri.scheme == b"https":
            policy = BrowserLikePolicyForHTTPS()
            endpoint = wrapClientTLS(policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return QuietEndpoint(endpoint)


def make_agent(reactor: Any, connect_timeout_s: float) -> IAgent:
    """Twisted's Agent, with a connection for each request.

    :param seconds: how long connecting may take.
    """
    agent: IAgent = Agent.usingEndpointFactory(
        reactor, _ClientEndpointFactory(reactor, connect_timeout_s)
    )
    return agent


class BodyTooLong(Exception):
    """There is more than was asked for; the text says so."""


async def read_limited_body(response: Any, limit: int) -> bytes:
    """The body of an answer that nothing has read yet; the connection ends if nobody waits for it.

    :param response: an ``IResponse``, or treq's of a request with ``unbuffered``.
    :param limit: bytes.
    :raises BodyTooLong: if it has more.
    """
    kept = _LimitedBodyProtocol(limit)
    response.deliverBody(kept)
    return await kept.done


@define(eq=False)
class _LimitedBodyProtocol(Protocol):
    """Keeps a short body."""

    limit: int
    done: Deferred[bytes] = field(init=False)
    _pieces: list[bytes] = field(init=False, factory=list)
    _length: int = field(init=False, default=0)

    @done.default
    def _ended_when_nobody_waits(self) -> Deferred[bytes]:
        return Deferred(lambda _: self._end())

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self._length += len(data)
        if self._length > self.limit:
            self._end()
        else:
            self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell who waits."""
        if self.done.called:
            return
        if self._length > self.limit:
            self.done.errback(BodyTooLong(f"it is longer than {self.limit} bytes"))
        elif reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _end(self) -> None:
        transport: Any = self.transport
        # One of twisted.web's own, which ends the connection below.
        end = getattr(transport, "abortConnection", None) or transport.stopProducing
        end()
