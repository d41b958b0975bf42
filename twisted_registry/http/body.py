"""Bodies where the channel is not ours: the same promises, kept in plain ways.

A program may mount the API under a stock :class:`twisted.web.server.Site`. Then the whole body
has been stored before the Resource runs.

A request's body on its way in, as the Resource sees it.

A part of a body that its consumer reads from the socket by itself, on a thread.

A fast sender's bytes need not pass through the reactor's thread, in large pieces that no cache
holds until they are hashed. Whoever sends slowly is not worth a thread, and gets none for long.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.http.interfaces import BodyAborted, IRequestBody, IStreamingRequest

if TYPE_CHECKING:
    # @@EMPTY
    import socket
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_registry.tls.interfaces import IBlockingTLSConnection

log = Logger()


@implementer(IRequestBody)
class IncomingBody:
    """Hands pieces to a consumer as the channel reads them.

    The channel calls :meth:`deliver`, :meth:`end` and :meth:`abort`; the rest is for the
    Resource.

    :ivar length: in bytes, or UNKNOWN_LENGTH.
    :ivar changed: called when :attr:`wanted` may have changed.
    :ivar unheard: called with the exception of a consumer that nobody who took the body caught.
    :ivar over: whether nothing will be delivered any more.
    """

    def __init__(
        self,
        length: Any,
        on_change: Callable[[], None],
        on_unhandled_failure: Callable[[Failure], None],
        *,
        over: bool = False,
    ) -> None:
        self.length = length
        self.on_change = on_change
        self.on_unhandled_failure = on_unhandled_failure
        self.over = over
        self._consumer: Any = None
        self._paused = False
        self._done: Deferred[None] | None = None
        self._reason: Failure | None = None

    @property
    def taken(self) -> bool:
        """Whether somebody has asked for it."""
        return self._done is not None

    @property
    def wanted(self) -> bool:
        """Whether the next piece may be delivered now."""
        return self._consumer is not None and not self._paused

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Take the body. It may be taken once."""
        if self._done is not None:
            raise RuntimeError("this body has been taken already")
        if self.over:
            self._done = succeed(None) if self._reason is None else fail(self._reason)
            return self._done
        self._consumer = consumer
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._done = done
        self.on_change()
        return done

    def pauseProducing(self) -> None:
        """Deliver no more for now; the socket is not read either."""
        self._paused = True
        self.on_change()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self.on_change()

    def stopProducing(self) -> None:
        """Deliver no more: the rest is not wanted."""
        self.abort(Failure(BodyAborted("the body is not wanted any more")))

    def deliver(self, piece: bytes) -> None:
        """Pass a piece on. What the consumer raises is what the Deferred fails with."""
        try:
            self._consumer.write(piece)
        except Exception:  # noqa: BLE001 (whatever it is, the Resource is to hear of it)
            reason = Failure()
            log.failure("A request body could not be taken", failure=reason)
            self._fail(reason, self.on_unhandled_failure)

    def append_from(self) -> Callable[[DirectRead], Deferred[None] | None] | None:
        """What lets the consumer read the socket by itself, if it can: its ``append_from``.

        That takes a loan, and answers a Deferred that fires when the loan is over, whatever came
        of it; or None if it does not want one.
        """
        return getattr(self._consumer, "append_from", None)

    def end(self) -> None:
        """The last byte has been delivered."""
        if not self.over:
            self.over = True
            self._consumer = None
            if self._done is not None:
                self._done.callback(None)

    def abort(self, reason: Failure) -> None:
        """Nothing will come any more, and not all has."""
        self._fail(reason, lambda _: None)

    def _fail(self, reason: Failure, on_unhandled_failure: Callable[[Failure], None]) -> None:
        if self.over:
            return
        self.over = True
        self._consumer = None
        self._reason = reason
        if self._done is not None:
            self._done.errback(reason)
            self._done.addErrback(on_unhandled_failure)
        self.on_change()


# As much as a socket's read would have brought.
_SLICE_BYTES = 65536


@implementer(IRequestBody)
class BufferedBody:
    """A body that is complete, handed over slice by slice, one in each turn of the clock."""

    def __init__(self, content: BinaryIO, clock: IReactorTime) -> None:
        self.content = content
        self.clock = clock
        self._consumer: Any = None
        self._done: Deferred[None] | None = None
        self._call: IDelayedCall | None = None
        self._paused = False
        self._over = False
        self.length = content.seek(0, 2)
        content.seek(0)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Hand the body to ``consumer``. It may be taken once."""
        if self._done is not None:
            raise RuntimeError("this body has been taken already")
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._done = done
        if self._over:
            done.errback(BodyAborted("the body is not wanted any more"))
        else:
            self._consumer = consumer
            self._slice()
        return done

    def pauseProducing(self) -> None:
        """Hand over no more for now."""
        self._paused = True
        self._cancel()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        if self._consumer is not None and self._call is None:
            self._call = self.clock.callLater(0, self._slice)

    def stopProducing(self) -> None:
        """Hand over no more."""
        self._end(Failure(BodyAborted("the body is not wanted any more")))

    def _slice(self) -> None:
        self._call = None
        try:
            piece = self.content.read(_SLICE_BYTES)
            if piece:
                self._consumer.write(piece)
        except Exception:  # noqa: BLE001 (whoever took the body is to hear of it)
            self._end(Failure())
            return
        if self.content.tell() == self.length:
            self._end(None)
        elif not self._paused:
            self.resumeProducing()

    def _end(self, outcome: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        self._consumer = None
        self._cancel()
        if self._done is not None:
            self._done.callback(outcome)

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


def request_body(request: Any, clock: IReactorTime) -> Any:
    """The body of a request of any Site, as an IRequestBody.

    :param clock: paces a body that has been stored.
    """
    if IStreamingRequest.providedBy(request):
        return request.body
    return BufferedBody(request.content, clock)


#: Bytes of one read that show a fast sender; of less than that nothing is lent.
DIRECT_READ_MIN_BYTES = 256 * 1024
# How often, and for how many milliseconds, more is waited for before a sender counts as slow.
_MAX_POLLS = 8
_POLL_TIMEOUT_MS = 2


class DirectRead:
    """The right to read so many bytes of a socket, which nobody else reads meanwhile.

    ``read_into`` runs on a thread, and no call of it comes after :attr:`over`. The socket is what
    an output lends: a duplicate, or a connection over TLS.

    :ivar left: bytes that may still be read.
    :ivar taken: bytes that were.
    :ivar over: whether whoever has the loan is done with it.
    """

    def __init__(self, socket: socket.socket | IBlockingTLSConnection, left: int) -> None:
        self._socket = socket
        self.left = left
        self.taken = 0
        self.over = False
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` by half at least, if the sender is quick; answers how many bytes that was.

        The loan is over after bytes that came slowly, the last, and none: why none come is for the
        owner of the connection to find out.
        """
        buffer = buffer[: self.left]
        enough = (len(buffer) + 1) // 2
        filled = waits = 0
        try:
            while filled < enough:
                try:
                    length = self._socket.recv_into(buffer[filled:])
                except BlockingIOError:
                    waits += 1
                    if waits > _MAX_POLLS or not self._poller.poll(_POLL_TIMEOUT_MS):
                        break
                    continue
                if not length:
                    break
                filled += length
        except OSError:
            pass
        self.taken += filled
        self.left -= filled
        self.over = filled < enough or not self.left
        return filled

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()
