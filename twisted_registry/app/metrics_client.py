"""Read the metrics of a running registry, from the debug address of its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.web.client import Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from twisted_registry.config.http import parse_address
from twisted_registry.http.client import QuietEndpoint, make_agent, read_limited_body

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint
    from twisted.web.client import URI
    from twisted.web.iweb import IAgent

    from twisted_registry.config.schema import Configuration

_TIMEOUT_S = 5.0
_MAX_BODY_BYTES = 64 * 1024 * 1024
_OK = 200
#: Hosts that stand for all addresses of a machine, and empty for those as well.
_ANY_HOST = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - nothing is bound to them here


class MetricsUnavailable(Exception):
    """The metrics cannot be read; the text says why."""


@frozen
class MetricsAddress:
    """Where a registry on this machine shows its metrics.

    :ivar url: of the metrics.
    :ivar socket: the path of the Unix socket that the registry listens on; empty for TCP.
    """

    url: str
    socket: str = ""

    def __str__(self) -> str:
        return f"{self.url} on {self.socket}" if self.socket else self.url

    def make_agent(self, reactor: Any) -> IAgent:
        """Make the HTTP client that reads them."""
        if not self.socket:
            return make_agent(reactor, _TIMEOUT_S)
        agent: IAgent = Agent.usingEndpointFactory(reactor, _UnixSocket(reactor, self.socket))
        return agent


@implementer(IAgentEndpointFactory)
@frozen
class _UnixSocket:
    """Connects to a Unix socket, whatever the URL."""

    reactor: Any
    path: str

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: ARG002
        return QuietEndpoint(UNIXClientEndpoint(self.reactor, self.path, timeout=_TIMEOUT_S))


def metrics_address(configuration: Configuration) -> MetricsAddress:
    """Return where a registry on this machine shows its metrics.

    :raises MetricsUnavailable: if the configuration has no such address.
    """
    debug = configuration.http.debug
    if not debug.addr:
        raise MetricsUnavailable("http.debug.addr is not set")
    if not debug.prometheus.enabled:
        raise MetricsUnavailable("http.debug.prometheus.enabled is not set")
    address, path = parse_address(debug.addr), debug.prometheus.path
    if address.path:
        return MetricsAddress(f"http://localhost{path}", address.path)
    if not address.port:
        raise MetricsUnavailable(
            f"http.debug.addr: {debug.addr} has no port or Unix socket to connect to"
        )
    host = "127.0.0.1" if address.host in _ANY_HOST else address.host
    return MetricsAddress(f"http://{f'[{host}]' if ':' in host else host}:{address.port}{path}")


async def fetch_metrics(address: MetricsAddress, reactor: Any) -> str:
    """Return the metrics at an address, in the Prometheus text format.

    :raises MetricsUnavailable: if they cannot be read within five seconds.
    """
    fetching = Deferred.fromCoroutine(_fetch(address, reactor))
    try:
        return await fetching.addTimeout(_TIMEOUT_S, reactor)
    except (CancelledError, MetricsUnavailable):
        raise
    except Exception as error:
        raise MetricsUnavailable(f"{address}: {error}") from error


async def _fetch(address: MetricsAddress, reactor: Any) -> str:
    agent = address.make_agent(reactor)
    response: Any = await agent.request(b"GET", address.url.encode("ascii"))
    content = await read_limited_body(response, _MAX_BODY_BYTES)
    if response.code != _OK:
        raise MetricsUnavailable(f"{address}: answered with status {response.code}")
    return content.decode("utf-8", "replace")
