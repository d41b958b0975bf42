"""Streaming of request bodies into the store or into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProducer
    from twisted.web.iweb import IBodyProducer


class ContentTooLarge(Exception):
    """A body exceeds the limit."""


@implementer(IPushProducer)
@define(eq=False, repr=False)
class _BodyProducer:
    """A body as the producer of a consumer. Stopping it also ends the wait for its end.

    The Deferred of a body need not fire after the body is stopped.
    """

    body: IBodyProducer
    is_stopped: bool = field(init=False, default=False)
    finished: Deferred[None] | None = field(init=False, default=None)

    def pauseProducing(self) -> None:
        """Pause the body."""
        self.body.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume the body."""
        self.body.resumeProducing()

    def stopProducing(self) -> None:
        """Stop the body, and cancel the Deferred of its end."""
        self.is_stopped = True
        self.body.stopProducing()
        if self.finished is not None:
            self.finished.cancel()


async def stream_body(body: IBodyProducer, consumer: IConsumer) -> None:
    """Write ``body`` to ``consumer``, which may pause and stop it."""
    producer = _BodyProducer(body)
    consumer.registerProducer(producer, True)
    try:
        producer.finished = finished = body.startProducing(consumer)
        if producer.is_stopped:
            finished.cancel()
        await finished
    finally:
        consumer.unregisterProducer()


@implementer(IConsumer)
@define(eq=False, repr=False)
class BodyBuffer:
    """A consumer that keeps a small body in memory.

    :ivar limit: the most bytes; a body that exceeds it is stopped.
    :ivar overflowed: whether the body has exceeded it.
    """

    limit: int
    overflowed: bool = field(init=False, default=False)
    _pieces: list[bytes] = field(init=False, factory=list)
    _size: int = field(init=False, default=0)
    _producer: IProducer | None = field(init=False, default=None)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: ARG002, FBT001
        """Store the producer, to stop it."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Drop the producer."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Store bytes, or stop the producer if they exceed the limit."""
        if self.overflowed:
            return
        self._size += len(data)
        if self._size > self.limit:
            self.overflowed = True
            self._pieces.clear()
            if self._producer is not None:
                self._producer.stopProducing()
            return
        self._pieces.append(data)

    def content(self) -> bytes:
        """Return all bytes."""
        return b"".join(self._pieces)


async def read_body(body: IBodyProducer, limit: int) -> bytes:
    """Read a small body into memory.

    :param limit: the most bytes.
    :raises ContentTooLarge: as soon as there are more; the rest is not read.
    """
    if isinstance(body.length, int) and body.length > limit:
        raise ContentTooLarge
    buffer = BodyBuffer(limit)
    try:
        await stream_body(body, buffer)
    except Exception:
        if not buffer.overflowed:
            raise
    if buffer.overflowed:
        raise ContentTooLarge
    return buffer.content()
