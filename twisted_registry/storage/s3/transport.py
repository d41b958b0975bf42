"""Requests to the store over connections of our own, and answers that end or fail in time.

This is twisted.web's Agent as it is, and not treq around it: treq takes another 0.15 ms for a
request, asks for compressed bodies and unpacks them, and keeps cookies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ProxyAgent,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http_headers import Headers

from twisted_registry.storage.s3.answer import S3Response
from twisted_registry.storage.s3.endpoints import StoreEndpointFactory
from twisted_registry.storage.s3.errors import Unreachable
from twisted_registry.storage.s3.patience import IdleTimeout
from twisted_registry.storage.s3.promptness import QuickAckEndpointFactory
from twisted_registry.storage.s3.requestbody import RequestBody
from twisted_registry.storage.s3.tunnel import ProxyAuthorizationAgent
from twisted_registry.storage.s3.unverified import UnverifiedTLSPolicy

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse

    from twisted_registry.storage.s3.interfaces import Content
    from twisted_registry.storage.s3.proxies import Proxy

#: Idle connections that are kept for the next requests, and for how many seconds. The services
#: of AWS close theirs after some 20.
MAX_IDLE_CONNECTIONS: Final = 64
IDLE_CONNECTION_S: Final = 15
#: Seconds that closing may take.
CLOSE_TIMEOUT_S: Final = 5.0

_NETWORK_ERRORS: Final = (
    ConnectError,
    ConnectTimeout,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    SSL.Error,
)


@frozen
class Timeouts:
    """How long to wait for the store, in seconds.

    :ivar connect: for a connection.
    :ivar answer: for the head of an answer, once the request has been sent.
    :ivar idle: for the next bytes, in either direction.
    """

    connect: float = 10.0
    answer: float = 30.0
    idle: float = 30.0


@define(eq=False)
class Transport:
    """Sends requests. Nothing is tried twice here, no redirect is followed.

    :ivar clock: for the times.
    :ivar agent: makes the requests.
    :ivar pool: of the agent's idle connections, if it has one.
    """

    _clock: IReactorTime
    _agent: IAgent
    _pool: HTTPConnectionPool | None = None
    _timeouts: Timeouts = field(factory=Timeouts)
    _closed: bool = field(init=False, default=False)

    @inlineCallbacks
    def send(
        self,
        what: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content = b"",
        response_timeout: float | None = None,
    ) -> Generator[Deferred[IResponse], Any, S3Response]:
        """Fire with the answer, whatever its status, once its head is there.

        Cancelling drops the connection.

        :param what: the operation, for errors.
        :param url: encoded; it is sent as it is.
        :param answer_seconds: how long to wait for the head, if not as long as usual.
        :raises Unreachable: if there is none.
        """
        if self._closed:
            raise Unreachable(what, "the connections are closed")
        times = self._timeouts
        response_timeout = times.answer if response_timeout is None else response_timeout
        idle_timeout = IdleTimeout(self._clock, lambda: request.cancel())  # noqa: PLW0108 - not there yet
        idle_timeout.restart(times.connect + response_timeout)
        body = None
        if content:
            body = RequestBody(
                content, lambda more: idle_timeout.restart(times.idle if more else response_timeout)
            )
        request = self._agent.request(
            method.encode("ascii"),
            url.encode("ascii"),
            Headers({name: [value] for name, value in headers.items()}),
            body,
        )
        try:
            response = yield request
        except CancelledError:
            if not idle_timeout.expired:
                raise
            raise _timeout_error(what, idle_timeout) from None
        except _NETWORK_ERRORS as error:
            if idle_timeout.expired:
                raise _timeout_error(what, idle_timeout) from None
            cause = _root_cause(error)
            if isinstance(cause, (CancelledError, ConnectingCancelledError)):
                raise CancelledError from None
            raise Unreachable(what, _describe_error(cause), retryable=True) from None
        finally:
            idle_timeout.cancel()
        return S3Response(what, response, self._clock, times.idle)

    def close(self) -> Deferred[None]:
        """Close idle connections, and others as soon as they are idle."""
        self._closed = True
        pool = self._pool
        if pool is None:
            return succeed(None)
        pool.cachedConnectionTimeout = 0
        closing: Deferred[None] = pool.closeCachedConnections()
        # A peer that does not take part in the farewell shall not keep us.
        return closing.addTimeout(CLOSE_TIMEOUT_S, self._clock, lambda _, __: None)


def make_transport(
    reactor: Any,
    *,
    verify: bool = True,
    timeouts: Timeouts | None = None,
    scheme: str = "",
    proxy: Proxy | None = None,
) -> Transport:
    """Answer a transport over real connections.

    :param verify: whether a server over TLS must prove who it is, to an authority that this
        machine trusts.
    :param scheme: of all URLs, if there is a proxy.
    :param proxy: what stands before the store.
    """
    timeouts = timeouts or Timeouts()
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = MAX_IDLE_CONNECTIONS
    pool.cachedConnectionTimeout = IDLE_CONNECTION_S
    # Its own attempts would know nothing of ours.
    pool.retryAutomatically = False
    policy: IPolicyForHTTPS = BrowserLikePolicyForHTTPS() if verify else UnverifiedTLSPolicy()
    endpoints = StoreEndpointFactory(reactor, policy, timeouts.connect, proxy)
    agent: IAgent = Agent.usingEndpointFactory(reactor, QuickAckEndpointFactory(endpoints), pool)
    if proxy is not None and scheme == "http":
        direct = endpoints.direct(proxy.host, proxy.port)
        agent = ProxyAuthorizationAgent(ProxyAgent(direct, reactor, pool), proxy.authorization)
    return Transport(reactor, agent, pool, timeouts)


def _timeout_error(what: str, idle_timeout: IdleTimeout) -> Unreachable:
    return Unreachable(what, f"no sign of life for {idle_timeout.seconds:g} s", retryable=True)


def _root_cause(error: BaseException) -> BaseException:
    """What an error of the Agent is about: the first of its reasons, and of theirs."""
    reasons = getattr(error, "reasons", None)
    return _root_cause(reasons[0].value) if reasons else error


def _describe_error(error: BaseException) -> str:
    if isinstance(error, SSL.Error):
        # Errors of the library are triples, with the reason at the end; others are not.
        told = error.args[0] if error.args else []
        reasons = [words[-1] for words in told] if isinstance(told, list) else error.args
        return f"TLS: {'; '.join(map(str, reasons)) or type(error).__name__}"
    if isinstance(error, VerificationError):
        return "TLS: the certificate is for another host"
    return str(error) or type(error).__name__
