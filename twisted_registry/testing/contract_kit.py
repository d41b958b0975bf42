"""What the promises of a driver are told with: see :mod:`twisted_registry.testing.storage_contract`."""

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

#: More than any driver reads, writes or keeps at once, and no round number.
LARGE_CONTENT = bytes(range(251)) * 43_000


async def error_of(answer: Awaitable[Any]) -> StorageError:
    """Answer the error that an awaitable fails with."""
    try:
        result = await answer
    except StorageError as error:
        return error
    raise AssertionError(f"no error, but {result!r}")


@implementer(IConsumer)
@define(eq=False)
class Sink:
    """Keeps what it is given.

    :ivar pauses: whether to pause the producer at each write, until :meth:`resume`.
    """

    pauses: bool = False
    received: list[bytes] = field(factory=list)
    producer: IPushProducer | None = None
    wanted: Deferred[None] = field(factory=Deferred)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Take the producer."""
        assert streaming
        assert self.producer is None
        verifyObject(IPushProducer, producer)
        self.producer = cast("IPushProducer", producer)

    def unregisterProducer(self) -> None:
        """Let the producer go."""
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        """Keep ``data``."""
        assert self.producer is not None
        self.received.append(data)
        if self.pauses:
            self.producer.pauseProducing()
            wanted, self.wanted = self.wanted, Deferred()
            wanted.callback(None)

    @property
    def is_fed(self) -> bool:
        """Whether a producer is registered."""
        return self.producer is not None

    @property
    def content(self) -> bytes:
        """All that came."""
        return b"".join(self.received)


async def read(driver: IStorageDriver, path: str) -> bytes:
    """Answer the content of a file of any size."""
    sink = Sink()
    await (await driver.open(path)).deliver(sink)
    return sink.content


async def store(driver: IStorageDriver, path: str, content: bytes) -> None:
    """Write a file of any size."""
    writer = await driver.writer(path, 0)
    writer.write(content)
    await writer.commit()
    await writer.close()
