"""The body of a request: bytes in memory, which can be sent as often as necessary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.interfaces import IConsumer

    from twisted_registry.storage.s3.interfaces import Content

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
