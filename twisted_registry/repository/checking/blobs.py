"""Every blob, read again: are the bytes under a digest those that it names?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.repository import layout
from twisted_registry.repository.checking.damage import Finding, Kind
from twisted_registry.repository.checking.hashing import stored_digest
from twisted_registry.repository.checking.walking import files
from twisted_registry.repository.concurrency import each
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from twisted_registry.repository.checking.shelf import Shelf
    from twisted_registry.storage.interfaces import Entry, IStorageDriver


@define(eq=False)
class StoredBlobs:
    """The blobs of a store.

    :ivar shelf: where those go that are not what they should be.
    :ivar pay: told of the bytes that will be read next; waits when they are too many.
    """

    driver: IStorageDriver
    shelf: Shelf
    pay: Callable[[int], Awaitable[None]]

    def files(self, after: str = "") -> AsyncIterator[Sequence[Entry] | Finding]:
        """Yield all files that are kept where blobs are, in batches, in order.

        :param after: only paths greater than this.
        """
        return files(self.driver, layout.BLOBS, after)

    async def examine_all(
        self, page: Sequence[Entry], over: Callable[[int], object]
    ) -> list[Finding]:
        """Read some files, several at once; return what is wrong with them.

        :param over: told the size of each when it was read.
        """

        async def read(entry: Entry) -> Finding | None:
            finding = await self.examine(entry)
            over(entry.size or 0)
            return finding

        return [finding for finding in await each(read, page) if finding is not None]

    async def examine(self, entry: Entry) -> Finding | None:
        """Read a file; return what is wrong with it, or None."""
        path = entry.path
        digest = layout.digest_of_blob(path)
        named = digest or _named_by(path)
        if named is None:
            return Finding(Kind.FILE_STRAY, path)
        try:
            found = await stored_digest(self.driver, path, named.algorithm, self.pay)
            if digest is not None and found is not None and found[0] != digest:
                # What comes from afar may have been spoiled on its way: a good one must stay.
                found = await stored_digest(self.driver, path, named.algorithm, self.pay)
        except PathNotFound:
            # It was deleted, and nothing is wrong with that.
            return None
        except StorageError as error:
            return Finding(Kind.FILE_UNREADABLE, path, error.reason, digest)
        return None if found is None else self._compared(path, digest, *found)

    def _compared(
        self, path: str, digest: Digest | None, held: Digest, seen: Entry
    ) -> Finding | None:
        if digest is None:
            return self._misplaced(path, held)
        if held == digest:
            return None
        kind = Kind.BLOB_CORRUPT if seen.size else Kind.BLOB_EMPTY
        detail = f"its {seen.size} bytes are those of {held}" if seen.size else ""
        return Finding(
            kind, path, detail, digest, repair=lambda: self._isolate(seen), silence=digest
        )

    def _misplaced(self, path: str, held: Digest) -> Finding:
        return Finding(
            Kind.BLOB_MISPLACED, path, "nothing looks for it there", held,
            repair=lambda: self._put_in_place(path, held), silence=held,
        )  # fmt: skip

    async def _isolate(self, seen: Entry) -> bool:
        """Take a damaged blob away, unless somebody has just pushed it again."""
        try:
            if await self.driver.stat(seen.path) != seen:
                return False
        except PathNotFound:
            return False
        return await self.shelf.take(seen.path)

    async def _put_in_place(self, path: str, held: Digest) -> bool:
        try:
            await self.driver.stat(layout.blob(held))
        except PathNotFound:
            try:
                await self.driver.copy(path, layout.blob(held))
            except PathNotFound:
                return False
        return await self.shelf.take(path)


def _named_by(path: str) -> Digest | None:
    """The digest that a path names though the bytes do not belong there."""
    parts = path.removeprefix(f"{layout.BLOBS}/").split("/")
    if len(parts) < 2 or parts[-1] != "data":
        return None
    for algorithm in ALGORITHMS:
        try:
            return Digest.parse(f"{algorithm}:{parts[-2]}")
        except DigestInvalid:
            continue
    return None
