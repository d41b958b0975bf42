"""Changes one after the other: how a store without a quicker way concludes a file."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import Move, PathNotFound, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.interfaces import Change, IStorageDriver
    from twisted_registry.storage.streams import IWriter


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
