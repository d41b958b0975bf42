"""Writers that are fed by one push producer, which they may pause.

Changes one after the other: how a store without a quicker way concludes a file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import Move, PathNotFound, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProducer, IPushProducer

    from twisted_registry.storage.interfaces import Change, IStorageDriver, IWriter, StorageError


class PushConsumer(ABC):
    """What such writers have in common; one says itself when it is full."""

    def __init__(self) -> None:
        self._producer: IPushProducer | None = None
        self._paused = False
        #: why nothing more is taken, and whether it was asked to end
        self._failure: StorageError | None = None
        self._ending = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Take the producer that ``write`` pauses.

        :raises RuntimeError: for a pull producer, or a second one.
        """
        if not streaming or self._producer is not None:
            raise RuntimeError("a writer takes one push producer")
        self._producer, self._paused = cast("IPushProducer", producer), False
        if self._failure is not None or self._ending:
            producer.stopProducing()
        else:
            self._pause_if_full()

    def unregisterProducer(self) -> None:
        """Let the producer go."""
        self._producer = None

    @abstractmethod
    def _pause_if_full(self) -> None:
        """Pause the producer if too much waits."""


@inlineCallbacks
def finalize_in_steps(
    driver: IStorageDriver, writer: IWriter, decide: Callable[[int], Sequence[Change]]
) -> Generator[Deferred[Any], Any, int]:
    """Commit ``writer``, make the changes by calls of ``driver``, close it: see IWriter."""
    size: int = yield writer.commit()
    for change in decide(size):
        if isinstance(change, Put):
            yield driver.put(change.path, change.content)
        elif isinstance(change, Move):
            yield driver.move(change.source, change.destination)
        else:
            with suppress(PathNotFound):
                yield driver.delete(change.path)
    yield writer.close()
    return size
