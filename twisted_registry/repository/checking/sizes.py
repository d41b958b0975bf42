"""Which blobs there are, asked again and again."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted_registry.digest import Digest
    from twisted_registry.storage.interfaces import IStorageDriver

#: Blobs of which it is remembered that they are there: some 25 MB.
_MAX_KNOWN_SIZES = 100_000


@define(eq=False, repr=False)
class BlobSizes:
    """The sizes of blobs; those that are not there are looked for each time.

    :ivar unreadable: filled with those of which it can not be told.
    """

    driver: IStorageDriver
    unreadable: set[Digest]
    _known: OrderedDict[Digest, int] = field(init=False, factory=OrderedDict)

    async def of(self, digests: Iterable[Digest]) -> Mapping[Digest, int | None]:
        """The size of each blob in bytes, or None where there is none, or none can be read."""
        wanted = list(dict.fromkeys(digests))
        return dict(zip(wanted, await map_concurrently(self._size, wanted), strict=True))

    async def _size(self, digest: Digest) -> int | None:
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
            return known
        try:
            size = (await self.driver.stat(layout.blob(digest))).size
        except PathNotFound:
            return None
        except StorageError:
            # Its folder can not be read, which was reported when all blobs were looked for.
            self.unreadable.add(digest)
            return None
        if size is not None:
            self._known[digest] = size
            if len(self._known) > _MAX_KNOWN_SIZES:
                self._known.popitem(last=False)
        return size
