"""Every blob, read again: are the bytes under a digest those that it names?

The digest of what is stored: read on threads, a stretch at a time, never whole.

All files below a folder, also when a part of it can not be read.

The quarantine: what was taken out of the way, under the path that it had.

Nothing reads it. Whoever wants something back copies the folder of a run over the store.

Which blobs there are, asked again and again.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.integrity.findings import Finding, FindingKind
from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid, hasher
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.storage.fallbacks import folders
from twisted_registry.storage.interfaces import OffsetInvalid, PathNotFound, StorageError

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

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


_PAGE_SIZE = 1000


async def walk_files(
    driver: IStorageDriver, folder: str, after: str = ""
) -> AsyncIterator[Sequence[Entry] | Finding]:
    """Yield the files below a folder in the order of whole paths, a page at a time.

    A folder that can not be read is yielded as a finding, in its place.

    :param after: only paths greater than this.
    """
    while True:
        try:
            page = await driver.walk(folder, after, _PAGE_SIZE)
        except StorageError:
            break
        yield page
        if len(page) < _PAGE_SIZE:
            return
        after = page[-1].path
    # Somewhere in it: what lies around that place is looked at folder by folder.
    async for found in _walk_by_folder(driver, folder, after):
        yield found


async def _walk_by_folder(
    driver: IStorageDriver, folder: str, after: str
) -> AsyncIterator[Sequence[Entry] | Finding]:
    try:
        entries = await list_folder(driver, folder)
    except StorageError as error:
        yield Finding(FindingKind.FOLDER_UNREADABLE, folder, error.reason)
        return
    # As the paths below them sort: ``a-b`` comes before ``a/b``.
    for name, entry in sorted((e.path + "/" if e.is_folder else e.path, e) for e in entries):
        path = f"{folder}/{name}"
        if entry.is_folder:
            if path > after or after.startswith(path):
                async for found in walk_files(driver, path[:-1], after):
                    yield found
        elif path > after:
            yield [type(entry)(path, entry.size, entry.modified)]


async def list_folder(driver: IStorageDriver, folder: str) -> list[Entry]:
    """What lies directly in a folder; nothing if there is none.

    :raises StorageError: if it can not be read.
    """
    found: list[Entry] = []
    while True:
        try:
            page = await driver.list(folder, found[-1].path if found else "", _PAGE_SIZE)
        except PathNotFound:
            return found
        found += page
        if len(page) < _PAGE_SIZE:
            return found


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
            kind,
            path,
            detail,
            digest,
            repair=lambda: self._isolate_unchanged(seen),
            blocked_digest=digest,
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


@define(eq=False)
class Quarantine:
    """Takes files away, without destroying them.

    :ivar clock: names the folder of a run by the time of its beginning.
    """

    driver: IStorageDriver
    clock: IReactorTime
    run_name: str = field(init=False)

    @run_name.default
    def _make_run_name(self) -> str:
        return datetime.fromtimestamp(self.clock.seconds(), UTC).strftime("%Y%m%dT%H%M%SZ")

    async def isolate(self, path: str) -> bool:
        """Take a file away, and its folder if nothing else lies in it.

        :returns: whether it was there.
        """
        try:
            await self.driver.move(path, layout.quarantine_path(self.run_name, path))
        except PathNotFound:
            return False
        await folders(self.driver).prune([path.rpartition("/")[0]])
        return True


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
