"""The reader of the s3 driver: one or more ranges of objects, read as one file.

Bytes are passed to the consumer as they arrive; its pauses reach the connection. If a response is
truncated, the rest is requested again, provided that the object has not changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from twisted_registry.storage.interfaces import IReader, StorageError
from twisted_registry.storage.s3.errors import (
    InvalidResponse,
    Stalled,
    Unreachable,
    to_storage_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IProducer
    from twisted.python.failure import Failure

    from twisted_registry.storage.s3.interfaces import DeferredGenerator, IObjectBody, IS3Client
    from twisted_registry.storage.threads import Threads

#: How often a range is requested without receiving any bytes.
_MAX_ATTEMPTS: Final = 4
#: Bytes that are collected before an observer is called on a thread.
_OBSERVE_BYTES: Final = 1024 * 1024


@frozen
class ObjectRange:
    """A range of an object.

    :ivar offset: first byte.
    :ivar length: bytes.
    :ivar etag: required ETag of the object; empty accepts any.
    """

    key: str
    offset: int
    length: int
    etag: str


@implementer(IReader, IPushProducer, IConsumer)
@define(eq=False)
class ObjectReader:
    """Reads ranges of objects one after the other.

    :ivar path: of the file, for errors.
    :ivar ranges: ranges to read.
    :ivar body: the response to the first of them, if it was requested before.
    :ivar size: bytes of all ranges.
    """

    _client: IS3Client
    _threads: Threads
    _path: str
    _ranges: Sequence[ObjectRange]
    _body: IObjectBody | None = None
    size: int = field(init=False)
    _consumer: IConsumer | None = field(init=False, default=None)
    _source: IPushProducer | None = field(init=False, default=None)
    _paused: bool = field(init=False, default=False)
    _resumed: Deferred[None] | None = field(init=False, default=None)
    _delivery: Deferred[None] | None = field(init=False, default=None)
    _done: Deferred[None] | None = field(init=False, default=None)
    _sent: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        """Compute the size."""
        self.size = sum(object_range.length for object_range in self._ranges)

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write all bytes to ``consumer`` as a push producer, and close."""
        done: Deferred[None] = Deferred(lambda _: self._cancel())
        self._done, self._consumer = done, consumer
        consumer.registerProducer(self, True)
        self._delivery = self._deliver()
        self._delivery.addBoth(self._delivered)
        return done

    def feed(self, observe: Callable[[bytes], object]) -> Deferred[None]:
        """Call ``observe`` with all bytes, on a thread, and close."""
        observer = _ObservingConsumer(self._threads, observe)
        done: Deferred[None] = Deferred(lambda _: delivering.cancel())
        delivering = self.deliver(observer)
        delivering.addCallback(lambda _: observer.finish())
        delivering.addErrback(lambda failure: observer.failure or failure)
        delivering.addBoth(lambda result: None if done.called else done.callback(result))
        return done

    def close(self) -> None:
        """Drop the connection; a pending delivery is cancelled."""
        self._release()
        self.stopProducing()

    def pauseProducing(self) -> None:
        """Pause until resumed."""
        self._paused = True
        if self._source is not None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """Continue."""
        self._paused = False
        if self._source is not None:
            self._source.resumeProducing()
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Cancel the delivery."""
        if self._done is not None and not self._done.called:
            self._done.cancel()

    # The following methods are the consumer of the response bodies.

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Set the producer: a response body."""
        assert streaming
        self._source = cast("IPushProducer", producer)
        if self._paused:
            self._source.pauseProducing()

    def unregisterProducer(self) -> None:
        """Unset the producer."""
        self._source = None

    def write(self, data: bytes) -> None:
        """Write bytes to the consumer."""
        self._sent += len(data)
        if self._consumer is not None:
            self._consumer.write(data)

    def _cancel(self) -> None:
        self._release()
        if self._delivery is not None:
            self._delivery.cancel()

    def _release(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def _delivered(self, result: Failure | None) -> None:
        self._release()
        done = self._done
        assert done is not None
        if done.called:
            return
        if result is None:
            done.callback(None)
        elif result.check(CancelledError) is None:
            done.errback(to_storage_error(result, self._path))
        else:
            done.errback(result)

    @inlineCallbacks
    def _deliver(self) -> DeferredGenerator[None]:
        end = 0
        for object_range in self._ranges:
            end += object_range.length
            attempt = 0
            while self._sent < end:
                if self._paused:
                    self._resumed = Deferred()
                    yield self._resumed
                before = self._sent
                body, self._body = self._body, None
                if body is None:
                    # The client has repeated it already.
                    body = yield self._request_rest(object_range, end)
                try:
                    yield body.deliver(self)
                except (Unreachable, InvalidResponse) as error:
                    # A long body may be truncated several times, so progress resets the count.
                    has_progress = self._sent > before
                    attempt = 1 if has_progress else attempt + 1
                    has_stalled = isinstance(error, Stalled) and not has_progress
                    if has_stalled or attempt >= _MAX_ATTEMPTS or self._sent > end:
                        raise
                else:
                    if self._sent < end:
                        missing = end - self._sent
                        raise StorageError(self._path, f"has become {missing} bytes shorter")

    def _request_rest(self, object_range: ObjectRange, end: int) -> Deferred[IObjectBody]:
        """Request the rest of a range, which ends at the position ``end`` of all bytes."""
        left = end - self._sent
        return self._client.get_object(
            object_range.key,
            object_range.offset + object_range.length - left,
            left,
            object_range.etag,
        )


@implementer(IConsumer)
@define(eq=False)
class _ObservingConsumer:
    """Calls a function with blocks of about a MiB, on a thread."""

    _threads: Threads
    _observe: Callable[[bytes], object]
    failure: Failure | None = field(init=False, default=None)
    _pieces: list[bytes] = field(init=False, factory=list)
    _size: int = field(init=False, default=0)
    _busy: Deferred[Any] | None = field(init=False, default=None)
    _producer: IPushProducer | None = field(init=False, default=None)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: ARG002, FBT001
        """Set the producer: the reader."""
        self._producer = cast("IPushProducer", producer)

    def unregisterProducer(self) -> None:
        """Unset the producer."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Collect bytes; call the observer when there are enough."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _OBSERVE_BYTES and self._busy is None:
            if self._producer is not None:
                self._producer.pauseProducing()
            self._busy = self._flush()
            self._busy.addCallbacks(self._flushed, self._failed)

    def finish(self) -> Deferred[None]:
        """Fire when the observer was called with all bytes."""
        if self._busy is None:
            return self._flush()
        return self._busy.addCallback(lambda _: self._flush())

    def _flush(self) -> Deferred[None]:
        pieces, self._pieces, self._size = self._pieces, [], 0

        def call_observer() -> None:
            for piece in pieces:
                self._observe(piece)

        return self._threads.run_blocking(call_observer)

    def _flushed(self, _: None) -> None:
        self._busy = None
        if self._producer is not None:
            self._producer.resumeProducing()

    def _failed(self, failure: Failure) -> None:
        self.failure = failure
        if self._producer is not None:
            self._producer.stopProducing()
