"""HTTP requests to the store, with timeouts, over a connection pool.

This uses twisted.web's Agent directly. treq would cost more time per request, decompress bodies
and keep cookies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

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
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ProxyAgent,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from twisted_registry.http.client_proxies import ProxyAuthorizationAgent
from twisted_registry.storage.s3.connections import StoreEndpointFactory, UnverifiedTLSPolicy
from twisted_registry.storage.s3.errors import (
    InvalidResponse,
    S3Error,
    Stalled,
    Unreachable,
)
from twisted_registry.storage.s3.interfaces import IObjectBody, content_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
    from twisted.python.failure import Failure
    from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse

    from twisted_registry.http.client_proxies import Proxy
    from twisted_registry.storage.s3.interfaces import Content, DeferredGenerator, ObjectInfo

#: Maximum number of bytes per write to the transport. A larger write would be copied or encrypted
#: as a whole, and the idle timeout would see no progress until all of it was sent.
WRITE_BYTES: Final = 256 * 1024
#: Maximum number of idle connections to keep.
_MAX_IDLE_CONNECTIONS: Final = 64
#: How long to keep an idle connection. AWS closes its side after about 20 s.
_IDLE_CONNECTION_S: Final = 15
#: How long to wait for TLS shutdowns when closing.
_CLOSE_TIMEOUT_S: Final = 5.0
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

    A store that stalls holds a client for 30 s at most: each request is sent twice, and a body that
    stalls is requested again, so ``idle_s`` and twice ``response_s`` have to be less, as well as
    twice ``stored_s`` and the requests that follow, see
    :class:`~twisted_registry.storage.s3.sender.Sender`.

    :ivar connect_s: for a connection.
    :ivar response_s: for a connection and the response head, if the request has no content.
    :ivar stored_s: for the response head after a content was sent.
    :ivar idle_s: for the next bytes, in either direction.
    """

    connect_s: float = 5.0
    response_s: float = 10.0
    stored_s: float = 12.0
    idle_s: float = 9.0


@define(eq=False)
class IdleTimeout:
    """A timer that is restarted by every progress.

    :ivar on_timeout: called once, when the time is over.
    :ivar seconds: the current or last waiting time.
    :ivar expired: whether the time was over.
    """

    _clock: IReactorTime
    _on_timeout: Callable[[], object]
    seconds: float = field(init=False, default=0.0)
    expired: bool = field(init=False, default=False)
    _call: IDelayedCall | None = field(init=False, default=None)

    def restart(self, seconds: float) -> None:
        """Start or restart the timer."""
        self.seconds = seconds
        if self._call is not None:
            self._call.reset(seconds)
        elif not self.expired:
            self._call = self._clock.callLater(seconds, self._expire)

    def cancel(self) -> None:
        """Stop the timer, if it runs."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _expire(self) -> None:
        self._call = None
        self.expired = True
        self._on_timeout()


@implementer(IBodyProducer)
@define(eq=False)
class RequestBody:
    """Sends a content once.

    Only the pieces that are not sent yet are referenced: requests in reference cycles live on for a
    while, and would keep the memory of whole chunks.

    :ivar length: bytes; named by IBodyProducer.
    :ivar on_progress: called whenever the transport took bytes, with whether more follow.
    """

    length: int
    _pieces: Iterator[bytes] = field(repr=False)
    _on_progress: Callable[[bool], object]
    _consumer: IConsumer | None = field(init=False, default=None)
    _done: Deferred[None] = field(init=False, factory=Deferred)
    _paused: bool = field(init=False, default=False)

    @classmethod
    def from_content(cls, content: Content, on_progress: Callable[[bool], object]) -> RequestBody:
        """Return the body of a request that sends ``content``."""
        return cls(content_size(content), _split_content(content), on_progress)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write the content to ``consumer``; fire when all of it was written."""
        self._consumer = consumer
        self._write_pieces()
        return self._done

    def pauseProducing(self) -> None:
        """Stop writing until resumed."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Continue: the transport has sent what was written."""
        self._paused = False
        self._write_pieces()

    def stopProducing(self) -> None:
        """Stop for good. The Deferred then never fires, as IBodyProducer requires."""
        self._consumer = None
        self._pieces = iter(())

    def _write_pieces(self) -> None:
        while self._consumer is not None and not self._paused:
            piece = next(self._pieces, None)
            self._on_progress(piece is not None)
            if piece is None:
                self._consumer = None
                self._done.callback(None)
            else:
                # The consumer may call pauseProducing during this call.
                self._consumer.write(piece)


def _split_content(content: Content) -> Iterator[bytes]:
    """Yield the content in pieces of at most :data:`WRITE_BYTES` bytes."""
    for block in [content] if isinstance(content, bytes) else content:
        if len(block) <= WRITE_BYTES:
            if block:
                yield block
            continue
        view = memoryview(block)
        for start in range(0, len(block), WRITE_BYTES):
            yield bytes(view[start : start + WRITE_BYTES])


@implementer(IPushProducer)
@define(eq=False)
class BodyReceiver(Protocol):
    """Receives a response body, passes it to a function, and checks its length.

    :ivar operation_name: of the request, for errors.
    :ivar length: expected bytes; None if unknown.
    :ivar idle_s: seconds without data after which the body fails, unless it is paused.
    :ivar write: called with each block.
    :ivar consumer: the consumer that ``write`` belongs to, which may pause the body; None if
        there is none.
    :ivar done: fires when the whole body was written. Fails if the connection is lost, idle, or
        the length is wrong. Cancelling it drops the connection.
    """

    _operation_name: str
    _length: int | None
    _clock: IReactorTime
    _idle_s: float
    _write: Callable[[bytes], object]
    _consumer: IConsumer | None = None
    done: Deferred[None] = field(init=False)
    _received: int = field(init=False, default=0)
    _paused: bool = field(init=False, default=False)
    _finished: bool = field(init=False, default=False)
    _idle_timeout: IdleTimeout = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the Deferred and the timer, which call this object."""
        self.done = Deferred(lambda _: self._abort())
        self._idle_timeout = IdleTimeout(self._clock, self._timed_out)

    def start(self, response: IResponse) -> Deferred[None]:
        """Receive the body, and return :attr:`done`.

        Drops the connection if the receiver was stopped before.
        """
        if not self._finished:
            self._idle_timeout.restart(self._idle_s)
        if self._consumer is not None:
            self._consumer.registerProducer(self, True)
        response.deliverBody(self)
        if self._paused and not self._finished:
            # deliverBody delivers what has arrived, and then resumes the connection.
            self._producer().pauseProducing()
        return self.done

    def connectionMade(self) -> None:
        """Drop the connection if the receiver was stopped before."""
        if self._finished:
            self._producer().stopProducing()

    def dataReceived(self, data: bytes) -> None:
        """Pass a block on."""
        if self._finished:
            return
        self._received += len(data)
        if not self._paused:
            self._idle_timeout.restart(self._idle_s)
        self._write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Finish: the body is complete, or the connection was lost."""
        if self._finished:
            return
        error: S3Error | None = None
        if reason.check(PotentialDataLoss):
            error = InvalidResponse(
                self._operation_name, "the response has no length and no end", retryable=True
            )
        elif not reason.check(ResponseDone):
            error = self._incomplete_error("the connection was lost")
        elif self._length is not None and self._received != self._length:
            error = self._incomplete_error("the response ended")
        self.finish(error)

    def finish(self, error: S3Error | None) -> None:
        """Fire :attr:`done`; an error drops the connection."""
        self._release()
        if error is None:
            self.done.callback(None)
        else:
            self._drop_connection()
            self.done.errback(error)

    def pauseProducing(self) -> None:
        """Stop reading until resumed, without a timeout: the delay is on this side."""
        self._paused = True
        self._idle_timeout.cancel()
        if self.transport is not None:
            self._producer().pauseProducing()

    def resumeProducing(self) -> None:
        """Continue to read."""
        self._paused = False
        if not self._finished:
            self._idle_timeout.restart(self._idle_s)
        if self.transport is not None:
            self._producer().resumeProducing()

    def stopProducing(self) -> None:
        """Stop as if :attr:`done` was cancelled."""
        if not self._finished:
            self.done.cancel()

    def _producer(self) -> IPushProducer:
        # The transport that twisted.web gives to a body protocol is only a producer.
        return cast("IPushProducer", self.transport)

    def _abort(self) -> None:
        self._release()
        self._drop_connection()

    def _release(self) -> None:
        self._finished = True
        self._idle_timeout.cancel()
        if self._consumer is not None:
            self._consumer.unregisterProducer()

    def _drop_connection(self) -> None:
        if self.transport is not None:
            # This ends TLS connections without a shutdown, and has no effect on a connection
            # that was returned to the pool.
            self._producer().stopProducing()

    def _timed_out(self) -> None:
        self.finish(self._incomplete_error(f"no data for {self._idle_s:g} s", Stalled))

    def _incomplete_error(self, reason: str, kind: type[Unreachable] = Unreachable) -> S3Error:
        of = "" if self._length is None else f" of {self._length}"
        return kind(
            self._operation_name, f"{reason} after {self._received}{of} bytes", retryable=True
        )


@implementer(IObjectBody)
@define(eq=False)
class S3Response:
    """A response with an unread body.

    Call one of :meth:`deliver`, :meth:`collect` and :meth:`close`, once.

    :ivar operation_name: of the request, for errors.
    :ivar idle_s: seconds without data after which the body fails, unless it is paused.
    :ivar info: metadata of the object; set by ``get_object`` only.
    """

    operation_name: str
    _response: IResponse
    _clock: IReactorTime
    _idle_s: float
    info: ObjectInfo = field(init=False)
    _receiver: BodyReceiver | None = field(init=False, default=None)

    @property
    def status(self) -> int:
        """HTTP status."""
        code: int = self._response.code
        return code

    @property
    def length(self) -> int | None:
        """Announced bytes of the body; None if unknown."""
        length = self._response.length
        return None if length is UNKNOWN_LENGTH else int(length)

    def header(self, name: str) -> str:
        """Return the last value of a header; empty if it is missing."""
        values = self._response.headers.getRawHeaders(name.encode("ascii"), ())
        return values[-1].decode("utf-8", "replace") if values else ""

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write the body to ``consumer`` as a push producer.

        Cancelling the Deferred drops the connection.

        :raises S3Error: if the connection is lost or the length is wrong.
        """
        return self._make_receiver(consumer.write, consumer).start(self._response)

    def collect(self, limit: int) -> Deferred[bytes]:
        """Fire with the whole body.

        :param limit: maximum number of bytes; a longer body raises :class:`InvalidResponse`.
        """
        pieces: list[bytes] = []
        size = 0

        def add(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > limit:
                receiver.finish(
                    InvalidResponse(
                        self.operation_name, f"the response has more than {limit} bytes"
                    )
                )
            else:
                pieces.append(data)

        def join(_: None) -> bytes:
            content = b"".join(pieces)
            # The receiver and its callback refer to each other, and would keep the pieces.
            pieces.clear()
            return content

        receiver = self._make_receiver(add)
        return receiver.start(self._response).addCallback(join)

    def close(self) -> None:
        """Drop the connection unless the body was read to its end. Safe to call at any time."""
        if self._receiver is not None:
            self._receiver.stopProducing()
            return
        receiver = self._make_receiver(lambda _: None)
        receiver.done.addErrback(lambda _: None)
        receiver.stopProducing()
        receiver.start(self._response)

    def _make_receiver(
        self, write: Callable[[bytes], object], consumer: IConsumer | None = None
    ) -> BodyReceiver:
        assert self._receiver is None, "a response has one body"
        self._receiver = BodyReceiver(
            self.operation_name, self.length, self._clock, self._idle_s, write, consumer
        )
        return self._receiver


@define(eq=False)
class Transport:
    """Sends requests, without retries and redirects.

    :ivar clock: for the timeouts.
    :ivar agent: sends the requests.
    :ivar pool: idle connections of the agent; None if it has none.
    """

    _clock: IReactorTime
    _agent: IAgent
    _pool: HTTPConnectionPool | None = None
    _timeouts: Timeouts = field(factory=Timeouts)
    _closed: bool = field(init=False, default=False)

    @inlineCallbacks
    def send(
        self,
        operation_name: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content = b"",
        response_timeout_s: float | None = None,
    ) -> DeferredGenerator[S3Response]:
        """Fire with the response, of any status, when its head has arrived.

        Cancelling drops the connection.

        :param operation_name: for errors.
        :param url: encoded; it is sent unchanged.
        :param response_timeout_s: how long to wait for the response head, and for each block of the
            response, if the store may need longer than usual.
        :raises Stalled: if no response arrives in time.
        :raises Unreachable: if there is no connection, or it is lost.
        """
        if self._closed:
            raise Unreachable(operation_name, "the connections are closed")
        timeouts, idle_s = self._timeouts, self._timeouts.idle_s
        response_s = timeouts.stored_s if content else timeouts.response_s
        if response_timeout_s is not None:
            response_s = response_timeout_s
            idle_s = max(idle_s, response_timeout_s)
        idle_timeout = IdleTimeout(self._clock, lambda: request.cancel())  # noqa: PLW0108 - not bound yet
        idle_timeout.restart(response_s)
        body = None
        if content:
            body = RequestBody.from_content(
                content, lambda more: idle_timeout.restart(timeouts.idle_s if more else response_s)
            )
        request = self._agent.request(
            method.encode("ascii"),
            url.encode("ascii"),
            Headers({name: [value] for name, value in headers.items()}),
            body,
        )
        try:
            response: IResponse = yield request
        except CancelledError:
            if not idle_timeout.expired:
                raise
            raise _timeout_error(operation_name, idle_timeout) from None
        except _NETWORK_ERRORS as error:
            if idle_timeout.expired:
                raise _timeout_error(operation_name, idle_timeout) from None
            cause = _root_cause(error)
            if isinstance(cause, (CancelledError, ConnectingCancelledError)):
                raise CancelledError from None
            kind = Stalled if isinstance(cause, ConnectTimeout) else Unreachable
            raise kind(operation_name, _describe_error(cause), retryable=True) from None
        finally:
            idle_timeout.cancel()
        return S3Response(operation_name, response, self._clock, idle_s)

    def close(self) -> Deferred[None]:
        """Close idle connections now, and others when they become idle."""
        self._closed = True
        pool = self._pool
        if pool is None:
            return succeed(None)
        pool.cachedConnectionTimeout = 0
        closing: Deferred[None] = pool.closeCachedConnections()
        # A peer may never answer a TLS shutdown.
        return closing.addTimeout(_CLOSE_TIMEOUT_S, self._clock, lambda _, __: None)


def make_transport(
    reactor: Any,
    *,
    verify: bool = True,
    timeouts: Timeouts | None = None,
    proxy: Proxy | None = None,
    wrap_agent: Callable[[IAgent], IAgent] | None = None,
) -> Transport:
    """Return a transport over network connections.

    :param verify: whether to verify TLS certificates against the trusted authorities of this
        machine.
    :param proxy: proxy for all requests; None connects directly.
    :param wrap_agent: returns the agent to use in place of the one that makes connections.
    """
    timeouts = timeouts or Timeouts()
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = _MAX_IDLE_CONNECTIONS
    pool.cachedConnectionTimeout = _IDLE_CONNECTION_S
    # The sender retries.
    pool.retryAutomatically = False
    policy: IPolicyForHTTPS = BrowserLikePolicyForHTTPS() if verify else UnverifiedTLSPolicy()
    endpoints = StoreEndpointFactory(reactor, policy, timeouts.connect_s, proxy)
    if proxy is None or proxy.tunnels:
        agent: IAgent = Agent.usingEndpointFactory(reactor, endpoints, pool)
    else:
        proxy_agent = ProxyAgent(endpoints.proxy_endpoint(proxy), reactor, pool)
        agent = ProxyAuthorizationAgent(proxy_agent, proxy.authorization)
    return Transport(reactor, agent if wrap_agent is None else wrap_agent(agent), pool, timeouts)


def _timeout_error(operation_name: str, idle_timeout: IdleTimeout) -> Stalled:
    return Stalled(operation_name, f"no progress for {idle_timeout.seconds:g} s", retryable=True)


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost reason of an Agent's error, following the first of several."""
    reasons = getattr(error, "reasons", None)
    return _root_cause(reasons[0].value) if reasons else error


def _describe_error(error: BaseException) -> str:
    if isinstance(error, SSL.Error):
        # Errors of OpenSSL are lists of triples that end with the reason; others are not.
        details = error.args[0] if error.args else []
        reasons = [words[-1] for words in details] if isinstance(details, list) else error.args
        return f"TLS: {'; '.join(map(str, reasons)) or type(error).__name__}"
    if isinstance(error, VerificationError):
        return "TLS: the certificate is for another host"
    return str(error) or type(error).__name__
