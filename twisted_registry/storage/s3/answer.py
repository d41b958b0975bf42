"""An answer of the store: its head, and its body when somebody wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.web.iweb import UNKNOWN_LENGTH

from twisted_registry.storage.s3.bodypump import BodyReceiver
from twisted_registry.storage.s3.errors import InvalidResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IConsumer, IReactorTime
    from twisted.web.iweb import IResponse


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
        self._receiver = BodyReceiver(self.what, self.length, self._clock, self._idle, write, consumer)
        return self._receiver
