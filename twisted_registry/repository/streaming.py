"""Bytes on their way from a request into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProducer
    from twisted.web.iweb import IBodyProducer


class ContentTooLarge(Exception):
    """More bytes came than there is room for."""


@implementer(IPushProducer)
class _BodyProducer:
    """A body as a consumer sees it: stopping it also ends the wait for it.

    A body's own Deferred need never fire once it is stopped.
    """

    def __init__(self, body: IBodyProducer) -> None:
        self.body = body
        self.stopped = False
        self.finished: Deferred[None] | None = None

    def pauseProducing(self) -> None:
        """Pass it on."""
        self.body.pauseProducing()

    def resumeProducing(self) -> None:
        """Pass it on."""
        self.body.resumeProducing()

    def stopProducing(self) -> None:
        """Stop the body, and let whoever awaits it go."""
        self.stopped = True
        self.body.stopProducing()
        if self.finished is not None:
            self.finished.cancel()


async def stream_body(body: IBodyProducer, consumer: IConsumer) -> None:
    """Let ``body`` write itself into ``consumer``, which may pause and stop it."""
    source = _BodyProducer(body)
    consumer.registerProducer(source, True)
    try:
        source.finished = finished = body.startProducing(consumer)
        if source.stopped:
            finished.cancel()
        await finished
    finally:
        consumer.unregisterProducer()


@implementer(IConsumer)
class BodyBuffer:
    """Keeps a small body in memory.

    :ivar limit: bytes; a body that grows beyond it is stopped.
    :ivar overflowed: whether that happened.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.overflowed = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._producer: IProducer | None = None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: ARG002, FBT001
        """Remember whom to stop."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Keep a piece."""
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
        """Everything that was written."""
        return b"".join(self._pieces)


async def read_body(body: IBodyProducer, limit: int) -> bytes:
    """Take a whole small body.

    :param limit: bytes.
    :raises ContentTooLarge: as soon as there are more; the rest is not read.
    """
    if isinstance(body.length, int) and body.length > limit:
        raise ContentTooLarge
    collector = BodyBuffer(limit)
    try:
        await stream_body(body, collector)
    except Exception:
        if not collector.overflowed:
            raise
    if collector.overflowed:
        raise ContentTooLarge
    return collector.content()
