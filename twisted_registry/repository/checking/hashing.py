"""The digest of what is stored: read on threads, a stretch at a time, never whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.digest import Digest, hasher
from twisted_registry.storage.interfaces import OffsetInvalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Bytes that are read in one go, between two looks at the clock.
_READ_BYTES = 8 * 1024 * 1024
#: How often reading begins again because the file was replaced meanwhile.
_ATTEMPTS = 3


async def stored_digest(
    driver: IStorageDriver, path: str, algorithm: str, throttle: Callable[[int], Awaitable[None]]
) -> tuple[Digest, Entry] | None:
    """Read a file, and answer its digest and how the file looked.

    :param pay: told of the bytes that will be read next; waits when they are too many.
    :returns: None if it was replaced again and again while it was read.
    :raises PathNotFound: if it is not there any more.
    :raises StorageError: if it can not be read.
    """
    for _ in range(_ATTEMPTS):
        before = await driver.stat(path)
        running, read, size = hasher(algorithm), 0, before.size or 0
        try:
            while read < size:
                length = min(_READ_BYTES, size - read)
                await throttle(length)
                reader = await driver.open(path, read, length)
                read += reader.size
                await reader.feed(running.update)
                if not reader.size:
                    break
        except OffsetInvalid:
            continue
        if await driver.stat(path) == before:
            return Digest.from_hasher(running), before
    return None
