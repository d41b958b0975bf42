"""Verify the stored bytes of blobs, and move damaged ones to the quarantine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.integrity.findings import Finding, FindingKind
from twisted_registry.integrity.walk import walk_files
from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid, hasher
from twisted_registry.repository import layout
from twisted_registry.repository.cache import LRUCache
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.storage.fallbacks import folders
from twisted_registry.storage.interfaces import OffsetInvalid, PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Bytes that are read between two calls of the rate limiter.
_READ_BYTES = 8 * 1024 * 1024
#: How often a file is read that is replaced meanwhile.
_MAX_ATTEMPTS = 3
#: Sizes that :class:`BlobSizes` keeps, about 25 MB.
_MAX_KNOWN_SIZES = 100_000


async def stored_digest(
    driver: IStorageDriver, path: str, algorithm: str, throttle: Callable[[int], Awaitable[None]]
) -> tuple[Digest, Entry] | None:
    """Compute the digest of a file, a few MiB at a time.

    :param throttle: called with the number of bytes to read next; its awaitable delays the read.
    :returns: the digest and the entry that was read; None if each attempt saw the file replaced.
    :raises PathNotFound: if the file does not exist.
    :raises StorageError: if the file cannot be read.
    """
    for _ in range(_MAX_ATTEMPTS):
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


@define(eq=False)
class BlobCheck:
    """Checks the blobs of a store.

    :ivar quarantine: receives damaged and misplaced files.
    :ivar throttle: called with the number of bytes to read next; its awaitable delays the read.
    """

    driver: IStorageDriver
    quarantine: Quarantine
    throttle: Callable[[int], Awaitable[None]]

    def files(self, after: str = "") -> AsyncIterator[Sequence[Entry] | Finding]:
        """Yield all files below the blobs' folder, a page at a time, in order.

        :param after: only paths greater than this.
        """
        return walk_files(self.driver, layout.BLOBS, after)

    async def examine_all(
        self, page: Sequence[Entry], on_read: Callable[[int], object]
    ) -> list[Finding]:
        """Read some files, several at once, and return their findings.

        :param on_read: called with the size of each file in bytes when it was read.
        """

        async def read(entry: Entry) -> Finding | None:
            finding = await self.examine(entry)
            on_read(entry.size or 0)
            return finding

        return [finding for finding in await map_concurrently(read, page) if finding is not None]

    async def examine(self, entry: Entry) -> Finding | None:
        """Read a file and return its finding, or None."""
        path = entry.path
        digest = layout.digest_of_blob(path)
        named = digest or _digest_in_path(path)
        if named is None:
            return Finding(FindingKind.FILE_STRAY, path)
        try:
            found = await stored_digest(self.driver, path, named.algorithm, self.throttle)
            if digest is not None and found is not None and found[0] != digest:
                # A remote store may have corrupted it in transit: read it once more.
                found = await stored_digest(self.driver, path, named.algorithm, self.throttle)
        except PathNotFound:
            # It was deleted meanwhile.
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
        detail = f"its {seen.size} bytes have the digest {held}" if seen.size else ""
        return Finding(
            kind,
            path,
            detail,
            digest,
            repair=lambda: self._isolate_unchanged(seen),
            blocked_digest=digest,
        )

    def _misplaced_finding(self, path: str, held: Digest) -> Finding:
        return Finding(
            FindingKind.BLOB_MISPLACED, path, "nothing reads it there", held,
            repair=lambda: self._move_to_digest_path(path, held), blocked_digest=held,
        )  # fmt: skip

    async def _isolate_unchanged(self, seen: Entry) -> bool:
        """Quarantine a damaged blob, unless it has just been pushed again."""
        try:
            if await self.driver.stat(seen.path) != seen:
                return False
        except PathNotFound:
            return False
        return await self.quarantine.isolate(seen.path)

    async def _move_to_digest_path(self, path: str, held: Digest) -> bool:
        try:
            await self.driver.stat(layout.blob_data(held))
        except PathNotFound:
            try:
                await self.driver.copy(path, layout.blob_data(held))
            except PathNotFound:
                return False
        return await self.quarantine.isolate(path)


def _digest_in_path(path: str) -> Digest | None:
    """Return the digest in a path below the blobs' folder that is not the path of a blob."""
    parts = path.removeprefix(f"{layout.BLOBS}/").split("/")
    if len(parts) < 2 or parts[-1] != "data":
        return None
    for algorithm in ALGORITHMS:
        try:
            return Digest.parse(f"{algorithm}:{parts[-2]}")
        except DigestInvalid:
            continue
    return None


@define(eq=False)
class Quarantine:
    """Moves files out of the way without destroying them.

    They keep their paths, below a folder for each run. Nothing reads them; to restore something,
    copy the folder of a run over the store.

    :ivar run_name: of the folder, the time at which the run began.
    """

    driver: IStorageDriver
    clock: IReactorTime
    run_name: str = field(init=False)

    @run_name.default
    def _make_run_name(self) -> str:
        return datetime.fromtimestamp(self.clock.seconds(), UTC).strftime("%Y%m%dT%H%M%SZ")

    async def isolate(self, path: str) -> bool:
        """Move a file to the quarantine, and remove its folder if that is empty then.

        :returns: whether the file existed.
        """
        try:
            await self.driver.move(path, layout.quarantined_file(self.run_name, path))
        except PathNotFound:
            return False
        await folders(self.driver).prune([path.rpartition("/")[0]])
        return True


@define(eq=False, repr=False)
class BlobSizes:
    """Sizes of blobs, cached; blobs that do not exist are looked up each time.

    :ivar unreadable: filled with the blobs whose size cannot be read.
    """

    driver: IStorageDriver
    unreadable: set[Digest]
    _known: LRUCache[Digest, int] = field(init=False, factory=lambda: LRUCache(_MAX_KNOWN_SIZES))

    async def of(self, digests: Iterable[Digest]) -> Mapping[Digest, int | None]:
        """Return the size of each blob in bytes, or None where it is missing or unreadable."""
        wanted = list(dict.fromkeys(digests))
        return dict(zip(wanted, await map_concurrently(self._size, wanted), strict=True))

    async def _size(self, digest: Digest) -> int | None:
        known = self._known.get(digest)
        if known is not None:
            return known
        try:
            size = (await self.driver.stat(layout.blob_data(digest))).size
        except PathNotFound:
            return None
        except StorageError:
            # Its folder cannot be read, which BlobCheck has reported.
            self.unreadable.add(digest)
            return None
        if size is not None:
            self._known.put(digest, size)
        return size
