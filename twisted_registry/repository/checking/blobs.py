"""Every blob, read again: are the bytes under a digest those that it names?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.repository import layout
from twisted_registry.repository.checking.damage import Finding, FindingKind
from twisted_registry.repository.checking.hashing import stored_digest
from twisted_registry.repository.checking.walking import walk_files
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from twisted_registry.repository.checking.shelf import Quarantine
    from twisted_registry.storage.interfaces import Entry, IStorageDriver


@define(eq=False)
class BlobCheck:
    """The blobs of a store.

    :ivar shelf: where those go that are not what they should be.
    :ivar pay: told of the bytes that will be read next; waits when they are too many.
    """

    driver: IStorageDriver
    quarantine: Quarantine
    throttle: Callable[[int], Awaitable[None]]

    def files(self, after: str = "") -> AsyncIterator[Sequence[Entry] | Finding]:
        """Yield all files that are kept where blobs are, in batches, in order.

        :param after: only paths greater than this.
        """
        return walk_files(self.driver, layout.BLOBS, after)

    async def examine_all(
        self, page: Sequence[Entry], on_read: Callable[[int], object]
    ) -> list[Finding]:
        """Read some files, several at once; return what is wrong with them.

        :param over: told the size of each when it was read.
        """

        async def read(entry: Entry) -> Finding | None:
            finding = await self.examine(entry)
            on_read(entry.size or 0)
            return finding

        return [finding for finding in await map_concurrently(read, page) if finding is not None]

    async def examine(self, entry: Entry) -> Finding | None:
        """Read a file; return what is wrong with it, or None."""
        path = entry.path
        digest = layout.digest_of_blob(path)
        named = digest or _digest_in_path(path)
        if named is None:
            return Finding(FindingKind.FILE_STRAY, path)
        try:
            found = await stored_digest(self.driver, path, named.algorithm, self.throttle)
            if digest is not None and found is not None and found[0] != digest:
                # What comes from afar may have been spoiled on its way: a good one must stay.
                found = await stored_digest(self.driver, path, named.algorithm, self.throttle)
        except PathNotFound:
            # It was deleted, and nothing is wrong with that.
            return None
        except StorageError as error:
            return Finding(FindingKind.FILE_UNREADABLE, path, error.reason, digest)
        return None if found is None else self._compare_digest(path, digest, *found)

    def _compare_digest(
        self, path: str, digest: Digest | None, held: Digest, seen: Entry
    ) -> Finding | None:
        if digest is None:
            return self._misplaced_finding(path, held)
        if held == digest:
            return None
        kind = FindingKind.BLOB_CORRUPT if seen.size else FindingKind.BLOB_EMPTY
        detail = f"its {seen.size} bytes are those of {held}" if seen.size else ""
        return Finding(
            kind, path, detail, digest, repair=lambda: self._isolate_unchanged(seen), blocked_digest=digest
        )

    def _misplaced_finding(self, path: str, held: Digest) -> Finding:
        return Finding(
            FindingKind.BLOB_MISPLACED, path, "nothing looks for it there", held,
            repair=lambda: self._move_to_digest_path(path, held), blocked_digest=held,
        )  # fmt: skip

    async def _isolate_unchanged(self, seen: Entry) -> bool:
        """Take a damaged blob away, unless somebody has just pushed it again."""
        try:
            if await self.driver.stat(seen.path) != seen:
                return False
        except PathNotFound:
            return False
        return await self.quarantine.isolate(seen.path)

    async def _move_to_digest_path(self, path: str, held: Digest) -> bool:
        try:
            await self.driver.stat(layout.blob(held))
        except PathNotFound:
            try:
                await self.driver.copy(path, layout.blob(held))
            except PathNotFound:
                return False
        return await self.quarantine.isolate(path)


def _digest_in_path(path: str) -> Digest | None:
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
