"""Requests to the store over connections of our own, and answers that end or fail in time.

This is twisted.web's Agent as it is, and not treq around it: treq takes another 0.15 ms for a
request, asks for compressed bodies and unpacks them, and keeps cookies.

Giving up on a peer that shows no sign of life.

The body of an answer on its way to whoever wants it, and how it ended.

An answer of the store: its head, and its body when somebody wants it.

The body of a request: bytes in memory, which can be sent as often as necessary.
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

from twisted_registry.storage.s3.connections import (
    ProxyAuthorizationAgent,
    QuickAckEndpointFactory,
    StoreEndpointFactory,
    UnverifiedTLSPolicy,
)
from twisted_registry.storage.s3.errors import InvalidResponse, S3Error, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
    from twisted.python.failure import Failure
    from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse

    from twisted_registry.storage.s3.connections import Proxy
    from twisted_registry.storage.s3.interfaces import Content


@define(eq=False)
class IdleTimeout:
    """A timer that each sign of life sets back.

    :ivar give_up: called when it runs out, once.
    :ivar seconds: how long it waits, or waited at last.
    :ivar ended: whether it ran out.
    """

    _clock: IReactorTime
    _on_timeout: Callable[[], object]
    seconds: float = field(init=False, default=0.0)
    expired: bool = field(init=False, default=False)
    _call: IDelayedCall | None = field(init=False, default=None)

    def restart(self, seconds: float) -> None:
        """Begin to wait, or begin anew."""
        self.seconds = seconds
        if self._call is not None:
            self._call.reset(seconds)
        elif not self.expired:
            self._call = self._clock.callLater(seconds, self._end)

    def cancel(self) -> None:
        """Wait for nothing."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _end(self) -> None:
        self._call = None
        self.expired = True
        self._on_timeout()


@implementer(IPushProducer)
class BodyReceiver(Protocol):
    """Takes a body from the connection, and gives it to ``write``.

    :ivar done: fires when it has all been written; fails if it breaks off, stands still, or has
        not the length that was announced. Cancelling it drops the connection.
    """

    def __init__(
        self,
        what: str,
        length: int | None,
        clock: IReactorTime,
        idle: float,
        write: Callable[[bytes], object],
        consumer: IConsumer | None = None,
    ) -> None:
        """Take nothing yet.

        :param what: the operation that is answered, for errors.
        :param length: bytes that must come, if that is known.
        :param idle: seconds that the connection may stand still, unless we paused it.
        :param consumer: who may pause; ``write`` is its method then.
        """
        self.done: Deferred[None] = Deferred(lambda _: self._leave())
        self._what = what
        self._length = length
        self._idle = idle
        self._write = write
        self._consumer = consumer
        self._received = 0
        self._paused = False
        self._finished = False
        self._idle_timeout = IdleTimeout(clock, self._stalled)

    def start(self, response: IResponse) -> Deferred[None]:
        """Begin, and answer :attr:`done`. One that is over already drops the connection."""
        if not self._finished:
            self._idle_timeout.restart(self._idle)
        if self._consumer is not None:
            self._consumer.registerProducer(self, True)
        response.deliverBody(self)
        if self._paused and not self._finished:
            # deliverBody resumes the connection after it has given us what there was.
            self._producer().pauseProducing()
        return self.done

    def connectionMade(self) -> None:
        """Drop the connection if it is not wanted any more."""
        if self._finished:
            self._producer().stopProducing()

    def dataReceived(self, data: bytes) -> None:
        """Pass on a piece."""
        if self._finished:
            return
        self._received += len(data)
        if not self._paused:
            self._idle_timeout.restart(self._idle)
        self._write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The body has ended, in one way or another."""
        if self._finished:
            return
        if reason.check(PotentialDataLoss):
            error: S3Error | None = InvalidResponse(
                self._what, "the answer does not say where it ends", retryable=True
            )
        elif not reason.check(ResponseDone):
            error = self._incomplete_error("broke off")
        elif self._length is not None and self._received != self._length:
            error = self._incomplete_error("ended")
        else:
            error = None
        self.end(error)

    def end(self, error: S3Error | None) -> None:
        """Take no more; the connection is dropped if there is an error."""
        self._free()
        if error is None:
            self.done.callback(None)
        else:
            self._drop()
            self.done.errback(error)

    def pauseProducing(self) -> None:
        """Read no more until resumed. The peer may be as slow as we are."""
        self._paused = True
        self._idle_timeout.cancel()
        if self.transport is not None:
            self._producer().pauseProducing()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        if not self._finished:
            self._idle_timeout.restart(self._idle)
        if self.transport is not None:
            self._producer().resumeProducing()

    def stopProducing(self) -> None:
        """The consumer has gone: end as if cancelled."""
        if not self._finished:
            self.done.cancel()

    def _producer(self) -> IPushProducer:
        # What a body's protocol has as its transport is a producer, and no more than that.
        return cast("IPushProducer", self.transport)

    def _leave(self) -> None:
        self._free()
        self._drop()

    def _free(self) -> None:
        self._finished = True
        self._idle_timeout.cancel()
        if self._consumer is not None:
            self._consumer.unregisterProducer()

    def _drop(self) -> None:
        if self.transport is not None:
            # Ends a connection over TLS at once too, and does nothing to one that has been
            # given back to the pool.
            self._producer().stopProducing()

    def _stalled(self) -> None:
        self.end(self._incomplete_error(f"stood still for {self._idle:g} s"))

    def _incomplete_error(self, how: str) -> S3Error:
        of = "" if self._length is None else f" of {self._length}"
        return Unreachable(
            self._what, f"the answer {how} after {self._received}{of} bytes", retryable=True
        )


@define(eq=False)
class S3Response:
    """An answer of which only the head has been read.

    One of :meth:`deliver`, :meth:`collect` and :meth:`close` is to be called, once.

    :ivar what: the operation that it answers, for errors.
    :ivar idle: seconds that a body may stand still, unless we paused it.
    """

    what: str
    _response: IResponse
    _clock: IReactorTime
    _idle: float
    _receiver: BodyReceiver | None = field(init=False, default=None)

    @property
    def status(self) -> int:
        """The HTTP status."""
        code: int = self._response.code
        return code

    @property
    def length(self) -> int | None:
        """Bytes of the body; None if only its end will tell."""
        length = self._response.length
        return None if length is UNKNOWN_LENGTH else int(length)

    def header(self, name: str) -> str:
        """The last value of a header; empty if there is none."""
        values = self._response.headers.getRawHeaders(name.encode("ascii"), ())
        return values[-1].decode("utf-8", "replace") if values else ""

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write the body to ``consumer`` as a push producer.

        Cancelling the Deferred drops the connection.

        :raises S3Error: if it breaks off, or is not as long as it should be.
        """
        return self._make_receiver(consumer.write, consumer).start(self._response)

    def collect(self, limit: int) -> Deferred[bytes]:
        """Fire with the whole body.

        :param limit: bytes; a longer body is :class:`InvalidResponse`.
        """
        pieces: list[bytes] = []
        size = 0

        def keep(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > limit:
                receiver.end(InvalidResponse(self.what, f"the answer has more than {limit} bytes"))
            else:
                pieces.append(data)

        receiver = self._make_receiver(keep)
        return receiver.start(self._response).addCallback(lambda _: b"".join(pieces))

    def close(self) -> None:
        """Drop the connection, unless the body was read to its end. Safe to call at any time."""
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
        assert self._receiver is None, "an answer has one body"
        self._receiver = BodyReceiver(
            self.what, self.length, self._clock, self._idle, write, consumer
        )
        return self._receiver


#: Bytes that are handed to the transport at once. A large piece would be copied or encrypted
#: whole, and no sign of life would be seen until all of it was sent.
WRITE_BYTES = 256 * 1024


def content_size(content: Content) -> int:
    """How many bytes a content has."""
    return len(content) if isinstance(content, bytes) else sum(map(len, content))


@implementer(IBodyProducer)
class RequestBody:
    """Sends a content once.

    :ivar length: bytes.
    """

    def __init__(self, content: Content, on_progress: Callable[[bool], object]) -> None:
        """Send nothing yet.

        :param going_on: called whenever the transport has taken something, with whether there
            is more to come.
        """
        self.length = content_size(content)
        self._pieces = _pieces(content)
        self._on_progress = on_progress
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._paused = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin to send; fires when everything has been handed over."""
        self._consumer = consumer
        self._go_on()
        return self._done

    def pauseProducing(self) -> None:
        """Send no more until resumed."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on: what was sent so far has left us."""
        self._paused = False
        self._go_on()

    def stopProducing(self) -> None:
        """Stop for good; the Deferred then never fires, as IBodyProducer has it."""
        self._consumer = None

    def _go_on(self) -> None:
        while self._consumer is not None and not self._paused:
            piece = next(self._pieces, None)
            self._on_progress(piece is not None)
            if piece is None:
                self._consumer = None
                self._done.callback(None)
            else:
                # The consumer may pause us from within.
                self._consumer.write(piece)


def _pieces(content: Content) -> Iterator[bytes]:
    for block in [content] if isinstance(content, bytes) else content:
        if len(block) <= WRITE_BYTES:
            if block:
                yield block
            continue
        view = memoryview(block)
        for start in range(0, len(block), WRITE_BYTES):
            yield bytes(view[start : start + WRITE_BYTES])


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
