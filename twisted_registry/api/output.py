"""The sending side of one connection, over any transport.

Bytes go out in order, and a producer is held to the pace at which they leave. Here the
transport keeps the queue; :mod:`~twisted_registry.api.socketoutput` has the way around it, and
:mod:`~twisted_registry.api.secureoutput` the one over TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_registry.api.pull import PullToPush

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure


class Output:
    """What all kinds have: a producer, which is paused while much is waiting.

    :ivar pending: whether something that was written has not been handed on yet.
    :ivar direct: whether what is sent goes to the socket as it is.
    :ivar sends_files: whether files can be handed over, to ``send_file``.
    :ivar lends: whether somebody else may read the connection for a while.
    """

    is_plain_socket = sends_files = supports_direct_read = False

    def __init__(
        self,
        transport: Any,
        clock: IReactorTime,
        progressed: Callable[[], None],
        drained: Callable[[], None],
    ) -> None:
        """
        :param moved: called when waiting begins, and when a part of what waits was taken.
        :param drained: called when nothing waits any more.
        """
        self.pending = False
        self._transport = transport
        self._clock = clock
        self._progressed = progressed
        self._drained = drained
        self._producer: Any = None
        self._paused = False
        self._corked: list[bytes] | None = None

    def write(self, data: bytes) -> None:
        """Send, or keep if :meth:`cork` said so."""
        if self._corked is None:
            self._send(data)
        else:
            self._corked.append(data)

    def cork(self) -> None:
        """Keep what is written until :meth:`uncork`, to send it in one piece."""
        self._corked = []

    def uncork(self) -> None:
        """Send what was kept."""
        corked = self.take_corked()
        if corked:
            self._send(corked)

    def take_corked(self) -> bytes:
        """What was kept, to be sent in another way or not at all."""
        corked, self._corked = self._corked, None
        return b"".join(corked) if corked else b""

    def register_producer(self, producer: Any, *, streaming: bool) -> None:
        """Let a producer send; it is paused and resumed as the peer takes what it sends."""
        self._producer = producer if streaming else PullToPush(producer, self._clock)
        self._paused = False
        if self.pending:
            self._pause()
        elif not streaming:
            self._producer.resumeProducing()

    def unregister_producer(self) -> None:
        """The producer has no more."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PullToPush):
            producer.stop()

    def is_peer_gone(self) -> bool:
        """Whether it is known that the peer takes nothing any more."""
        return False

    def borrow(self) -> Any:
        """Something to read from in our place: with ``recv_into``, ``fileno`` and ``close``.

        :return: None if that can not be now. Only of an output that lends.
        """

    def close(self) -> None:
        """Nothing will be written any more: keep the transport from waiting for more."""

    def connection_lost(self, reason: Failure) -> None:  # noqa: ARG002 (files have a use for it)
        """The connection is gone: stop the producer, close files."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _send(self, data: bytes) -> None:
        self._transport.write(data)

    def _pause(self) -> None:
        if self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def _resume(self) -> None:
        if self._producer is not None and self._paused:
            self._paused = False
            self._producer.resumeProducing()
        if not self.pending:
            self._drained()


@implementer(IPushProducer)
class TransportOutput(Output):
    """Over a transport that queues, and pauses us when it has enough."""

    def __init__(
        self,
        transport: Any,
        clock: IReactorTime,
        progressed: Callable[[], None],
        drained: Callable[[], None],
    ) -> None:
        super().__init__(transport, clock, progressed, drained)
        transport.registerProducer(self, True)

    def close(self) -> None:
        """The transport does not close as long as a producer is registered."""
        self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self.pending = True
        self._progressed()
        self._pause()

    def resumeProducing(self) -> None:
        """The transport has handed everything on."""
        self.pending = False
        self._resume()

    def stopProducing(self) -> None:
        """The transport is gone; the channel hears of it in its own way."""
