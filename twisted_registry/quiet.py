"""Connections to other servers, made without a word: Twisted logs two lines for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import frozen
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.internet.protocol import Factory
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
    agent: IAgent = Agent.usingEndpointFactory(reactor, _ClientEndpointFactory(reactor, connect_timeout_s))
    return agent
