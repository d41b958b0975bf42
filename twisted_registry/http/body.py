"""Request bodies: received from a connection, read directly by a thread, or already buffered."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.http.interfaces import BodyAborted, IRequestBody, IStreamingRequest

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from contextvars import Context

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_registry.http.interfaces import IBlockingTLSConnection

log = Logger()

# Piece of a buffered body: as much as one read of a socket.
_BUFFERED_PIECE_BYTES = 65536
# How often, and for how many milliseconds, a direct read waits for more before it ends.
_MAX_POLLS = 8
_POLL_TIMEOUT_MS = 2


def request_body(request: Any, clock: IReactorTime) -> Any:
    """Return the body of a request of any Site, as an IRequestBody.

    :param clock: paces a body that twisted.web has buffered.
    """
    if IStreamingRequest.providedBy(request):
        return request.body
    return BufferedBody(request.content, clock)


@implementer(IRequestBody)
class IncomingBody:
    """A body that is passed to its consumer as the connection reads it.

    The connection calls :meth:`deliver`, :meth:`end` and :meth:`abort`.

    :ivar length: in bytes, or UNKNOWN_LENGTH.
    :ivar on_change: called when :attr:`accepts_data` may have changed.
    :ivar on_unhandled_failure: called with the failure of a consumer that no errback handled.
    :ivar finished: whether nothing more is delivered.
    :ivar context: the context in which the consumer is called; None for that of the connection.
    """

    def __init__(
        self,
        length: Any,
        on_change: Callable[[], None],
        on_unhandled_failure: Callable[[Failure], object],
        *,
        finished: bool = False,
    ) -> None:
        self.length = length
        self.on_change = on_change
        self.on_unhandled_failure = on_unhandled_failure
        self.finished = finished
        self.context: Context | None = None
        self._consumer: Any = None
        self._paused = False
        self._done: Deferred[None] | None = None
        self._reason: Failure | None = None

    @property
    def started(self) -> bool:
        """Whether ``startProducing`` has been called."""
        return self._done is not None

    @property
    def accepts_data(self) -> bool:
        """Whether a piece may be delivered now."""
        return self._consumer is not None and not self._paused

    @property
    def append_from(self) -> Callable[[DirectRead], Deferred[None] | None] | None:
        """The consumer's ``append_from``, see IRequestBody; None if it cannot read directly."""
        return getattr(self._consumer, "append_from", None)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Pass the body to ``consumer``.

        :raises RuntimeError: if this was called before.
        """
        if self._done is not None:
            raise RuntimeError("this body has been taken already")
        if self.finished:
            self._done = succeed(None) if self._reason is None else fail(self._reason)
            return self._done
        self._consumer = consumer
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._done = done
        self.on_change()
        return done

    def pauseProducing(self) -> None:
        """Deliver nothing for now. The socket is not read either."""
        self._paused = True
        self.on_change()

    def resumeProducing(self) -> None:
        """Continue to deliver."""
        self._paused = False
        self.on_change()

    def stopProducing(self) -> None:
        """Deliver nothing more."""
        self.abort(Failure(BodyAborted("the application stopped reading the body")))

    def deliver(self, piece: bytes) -> None:
        """Pass a piece to the consumer. An exception of the consumer fails the body."""
        try:
            if self.context is None:
                self._consumer.write(piece)
            else:
                # A copy, since a context cannot be entered twice.
                self.context.copy().run(self._consumer.write, piece)
        except Exception:  # noqa: BLE001 (the consumer may raise anything)
            reason = Failure()
            log.failure("The consumer of a request body failed", failure=reason)
            self._fail(reason, self.on_unhandled_failure)

    def end(self) -> None:
        """Finish after the last byte."""
        if not self.finished:
            self.finished = True
            self._consumer = None
            if self._done is not None:
                self._done.callback(None)

    def abort(self, reason: Failure) -> None:
        """Finish before the last byte."""
        self._fail(reason, lambda _: None)

    def _fail(self, reason: Failure, on_unhandled_failure: Callable[[Failure], object]) -> None:
        if self.finished:
            return
        self.finished = True
        self._consumer = None
        self._reason = reason
        if self._done is not None:
            self._done.errback(reason)
            self._done.addErrback(on_unhandled_failure)
        self.on_change()


class DirectRead:
    """The exclusive right of a thread to read a number of bytes of a body from the socket.

    The bytes of a fast sender need not pass through the reactor's thread. A slow sender does not
    occupy a thread: the read ends when no more data comes in time.

    :ivar left: bytes that may still be read.
    :ivar bytes_read: bytes that have been read.
    :ivar finished: whether ``read_into`` must not be called again.
    """

    def __init__(self, socket: socket.socket | IBlockingTLSConnection, left: int) -> None:
        """:param socket: what an output's ``open_direct_read`` returned; closed with this."""
        self._socket = socket
        self.left = left
        self.bytes_read = 0
        self.finished = False
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    def read_into(self, buffer: memoryview) -> int:
        """Fill at least half of ``buffer`` if the sender is fast enough. Called on a thread.

        The read is finished after the last byte, after a slow sender, and after an end or error of
        the connection: the connection finds out by itself which of them it was.

        :returns: how many bytes were read.
        """
        buffer = buffer[: self.left]
        enough = (len(buffer) + 1) // 2
        filled = polls = 0
        try:
            while filled < enough:
                try:
                    length = self._socket.recv_into(buffer[filled:])
                except BlockingIOError:
                    polls += 1
                    if polls > _MAX_POLLS or not self._poller.poll(_POLL_TIMEOUT_MS):
                        break
                    continue
                if not length:
                    break
                filled += length
        except OSError:
            pass
        self.bytes_read += filled
        self.left -= filled
        self.finished = filled < enough or not self.left
        return filled

    def close(self) -> None:
        """Close the duplicate of the socket, or give the TLS connection back."""
        self._socket.close()


class BufferedBody(IncomingBody):
    """A body that twisted.web has buffered, delivered one piece per turn of the reactor."""

    def __init__(self, content: BinaryIO, clock: IReactorTime) -> None:
        self._content = content
        self._clock = clock
        self._call: IDelayedCall | None = None
        length = content.seek(0, 2)
        content.seek(0)
        super().__init__(length, self._schedule, lambda reason: reason)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Pass the body to ``consumer``, the first piece at once.

        :raises RuntimeError: if this was called before.
        """
        done = super().startProducing(consumer)
        self._deliver_piece()
        return done

    def _schedule(self) -> None:
        """Deliver a piece in the next turn of the reactor, if the consumer accepts one then."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self.accepts_data:
            self._call = self._clock.callLater(0, self._deliver_piece)

    def _deliver_piece(self) -> None:
        if self.accepts_data:
            try:
                piece = self._content.read(_BUFFERED_PIECE_BYTES)
            except OSError:
                self._fail(Failure(), self.on_unhandled_failure)
                return
            is_last = self._content.tell() == self.length
            if piece:
                self.deliver(piece)
            if is_last:
                self.end()
        self._schedule()
