"""Common parts of the writers of drivers: push consumers, changes in order, the heap afterwards."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import Move, PathNotFound, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProducer, IPushProducer

    from twisted_registry.storage.interfaces import Change, IStorageDriver, IWriter, StorageError


#: Size of an upload after which the heap is trimmed.
TRIM_THRESHOLD_BYTES: Final = 8 * 1024 * 1024

# Only glibc has it.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim_heap() -> None:
    """Return free memory of the C library's heap to the system. Takes about a millisecond.

    Pieces that are read from sockets are up to 1 MiB. glibc allocates them on its heap and by
    itself returns only the free memory at the end of the heap. Mapping each piece separately would
    avoid this, but costs much more processor time.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


class PushConsumer(ABC):
    """A consumer of one push producer, which it may pause. Base class of writers."""

    def __init__(self) -> None:
        self._producer: IPushProducer | None = None
        self._paused = False
        #: the error after which writes are dropped
        self._failure: StorageError | None = None
        #: whether close() was called
        self._ending = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Accept a push producer, and stop it at once if nothing can be written any more.

        :raises RuntimeError: if it is a pull producer, or the second producer.
        """
        if not streaming or self._producer is not None:
            raise RuntimeError("a writer accepts one push producer")
        self._producer, self._paused = cast("IPushProducer", producer), False
        if self._failure is not None or self._ending:
            producer.stopProducing()
        else:
            self._pause_if_full()

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    @abstractmethod
    def _pause_if_full(self) -> None:
        """Pause the producer if too many bytes wait to be stored."""


@inlineCallbacks
def finalize_in_steps(
    driver: IStorageDriver, writer: IWriter, decide: Callable[[int], Sequence[Change]]
) -> Generator[Deferred[Any], Any, int]:
    """Do what :meth:`.IWriter.finalize` does by calls of ``driver`` and ``writer``."""
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
