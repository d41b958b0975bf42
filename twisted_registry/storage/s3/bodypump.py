"""The body of an answer on its way to whoever wants it, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from twisted_registry.storage.s3.errors import InvalidResponse, S3Error, Unreachable
from twisted_registry.storage.s3.patience import IdleTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IConsumer, IReactorTime
    from twisted.python.failure import Failure
    from twisted.web.iweb import IResponse


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
