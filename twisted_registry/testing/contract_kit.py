"""Tools of the contract tests: a consumer that records, and whole files in one call.

See :mod:`twisted_registry.testing.storage_contract`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_registry.storage.interfaces import IStorageDriver, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from twisted.internet.interfaces import IProducer

#: More than any driver reads, writes or buffers at once, and not a round number.
LARGE_CONTENT = bytes(range(251)) * 43_000


async def error_of(answer: Awaitable[Any]) -> StorageError:
    """Return the error that an awaitable fails with.

    :raises AssertionError: if it does not fail.
    """
    try:
        result = await answer
    except StorageError as error:
        return error
    raise AssertionError(f"no error, but {result!r}")


@implementer(IConsumer)
@define(eq=False)
class RecordingConsumer:
    """A consumer that records what is written to it.

    :ivar pauses: whether to pause the producer at each write.
    :ivar received: what was written, one item for each call.
    :ivar producer: the registered producer, or None.
    :ivar wanted: fires at the next write, if ``pauses``.
    """

    pauses: bool = False
    received: list[bytes] = field(factory=list)
    producer: IPushProducer | None = None
    wanted: Deferred[None] = field(factory=Deferred)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Accept one push producer."""
        assert streaming
        assert self.producer is None
        verifyObject(IPushProducer, producer)
        self.producer = cast("IPushProducer", producer)

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        """Record ``data``."""
        assert self.producer is not None
        self.received.append(data)
        if self.pauses:
            self.producer.pauseProducing()
            wanted, self.wanted = self.wanted, Deferred()
            wanted.callback(None)

    @property
    def has_producer(self) -> bool:
        """Whether a producer is registered."""
        return self.producer is not None

    @property
    def content(self) -> bytes:
        """All bytes that were written."""
        return b"".join(self.received)


async def read_file(driver: IStorageDriver, path: str) -> bytes:
    """Return the content of a file of any size."""
    consumer = RecordingConsumer()
    await (await driver.open(path)).deliver(consumer)
    return consumer.content


async def store_file(driver: IStorageDriver, path: str, content: bytes) -> None:
    """Write a file of any size."""
    writer = await driver.writer(path, 0)
    writer.write(content)
    await writer.commit()
    await writer.close()
