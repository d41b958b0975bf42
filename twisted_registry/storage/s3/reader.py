"""The reader of the s3 driver: bytes of one object, or of several in a row.

What comes from the store passes through with the consumer's pauses. An answer that breaks off
is asked for again from where it ended, if the object is still the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from twisted_registry.storage.interfaces import IReader, StorageError
from twisted_registry.storage.s3.errors import InvalidResponse, Unreachable, to_storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IProducer
    from twisted.python.failure import Failure

    from twisted_registry.storage.s3.interfaces import IObjectBody, IS3Client
    from twisted_registry.storage.s3.sinks import DeferredGenerator
    from twisted_registry.storage.threads import Threads

#: How often a stretch is asked for again when its answer breaks off.
_MAX_ATTEMPTS: Final = 4
#: Bytes that are shown to an observer at once.
_OBSERVE_BYTES: Final = 1024 * 1024


@frozen
class ObjectRange:
    """A part of an object.

    :ivar etag: the object's; empty takes any.
    """

    key: str
    offset: int
    length: int
    etag: str


@implementer(IReader, IPushProducer, IConsumer)
@define(eq=False)
class ObjectReader:
    """Stretches in a row, as one.

    :ivar stretches: what to read.
    :ivar body: the answer to the first of them, if it was asked for already.
    """

    _client: IS3Client
    _threads: Threads
    _path: str
    _offset: int
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
        """Count."""
        self.size = sum(object_range.length for object_range in self._ranges)

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write everything to ``consumer`` as a push producer, and close."""
        done: Deferred[None] = Deferred(lambda _: self._stop())
        self._done, self._consumer = done, consumer
        consumer.registerProducer(self, True)
        self._delivery = self._deliver()
        self._delivery.addBoth(self._ended)
        return done

    def feed(self, observe: Callable[[bytes], object]) -> Deferred[None]:
        """Call ``observe`` with everything, on a thread, and close."""
        observer = _ObservingConsumer(self._threads, observe)
        done: Deferred[None] = Deferred(lambda _: delivering.cancel())
        delivering = self.deliver(observer)
        delivering.addCallback(lambda _: observer.finish())
        delivering.addErrback(lambda failure: observer.failure or failure)
        delivering.addBoth(lambda result: None if done.called else done.callback(result))
        return done

    def close(self) -> None:
        """Drop the connection; a delivery under way ends as if cancelled."""
        self._free()
        self.stopProducing()

    def pauseProducing(self) -> None:
        """Write no more until resumed."""
        self._paused = True
        if self._source is not None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        if self._source is not None:
            self._source.resumeProducing()
        waking, self._resumed = self._resumed, None
        if waking is not None:
            waking.callback(None)

    def stopProducing(self) -> None:
        """The consumer has gone: end as if cancelled."""
        if self._done is not None and not self._done.called:
            self._done.cancel()

    # As the consumer of a body, which is another producer each time.

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Take the producer of a body."""
        assert streaming
        self._source = cast("IPushProducer", producer)
        if self._paused:
            self._source.pauseProducing()

    def unregisterProducer(self) -> None:
        """Let it go."""
        self._source = None

    def write(self, data: bytes) -> None:
        """Pass bytes on."""
        self._sent += len(data)
        if self._consumer is not None:
            self._consumer.write(data)

    def _stop(self) -> None:
        self._free()
        if self._delivery is not None:
            self._delivery.cancel()

    def _free(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def _ended(self, result: Failure | None) -> None:
        self._free()
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
    def _deliver(self) -> DeferredGenerator:
        end = 0
        for object_range in self._ranges:
            end += object_range.length
            attempt = 0
            while self._sent < end:
                if self._paused:
                    self._resumed = Deferred()
                    yield self._resumed
                before = self._sent
                try:
                    yield self._deliver_range(object_range, end)
                except (Unreachable, InvalidResponse):
                    # Progress earns new patience: a long body may break off more than once.
                    attempt = 1 if self._sent > before else attempt + 1
                    if attempt >= _MAX_ATTEMPTS or self._sent > end:
                        raise

    @inlineCallbacks
    def _deliver_range(self, object_range: ObjectRange, end: int) -> DeferredGenerator:
        """Write what is left of a stretch, or a part of that if the answer breaks off."""
        body, self._body = self._body, None
        if body is None:
            left = end - self._sent
            body = yield self._client.get_object(
                object_range.key,
                object_range.offset + object_range.length - left,
                left,
                object_range.etag,
            )
        yield body.deliver(self)
        if self._sent < end:
            raise StorageError(self._path, f"has {end - self._sent} bytes less than it had")


@implementer(IConsumer)
@define(eq=False)
class _ObservingConsumer:
    """Shows what it gets to a function, a MiB at a time, on a thread."""

    _threads: Threads
    _observe: Callable[[bytes], object]
    failure: Failure | None = field(init=False, default=None)
    _pieces: list[bytes] = field(init=False, factory=list)
    _size: int = field(init=False, default=0)
    _busy: Deferred[Any] | None = field(init=False, default=None)
    _producer: IPushProducer | None = field(init=False, default=None)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: ARG002, FBT001
        """Take the reader."""
        self._producer = cast("IPushProducer", producer)

    def unregisterProducer(self) -> None:
        """Let it go."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Collect, and show when there is enough."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _OBSERVE_BYTES and self._busy is None:
            if self._producer is not None:
                self._producer.pauseProducing()
            self._busy = self._flush()
            self._busy.addCallbacks(self._flushed, self._failed)

    def finish(self) -> Deferred[None]:
        """Fire when everything was shown."""
        if self._busy is None:
            return self._flush()
        return self._busy.addCallback(lambda _: self._flush())

    def _flush(self) -> Deferred[None]:
        pieces, self._pieces, self._size = self._pieces, [], 0

        def show() -> None:
            for piece in pieces:
                self._observe(piece)

        return self._threads.run_blocking(show)

    def _flushed(self, _: None) -> None:
        self._busy = None
        if self._producer is not None:
            self._producer.resumeProducing()

    def _failed(self, failure: Failure) -> None:
        self.failure = failure
        if self._producer is not None:
            self._producer.stopProducing()
