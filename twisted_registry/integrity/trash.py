"""Check the trash: could each item be restored as it was?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.integrity.blobs import stored_digest
from twisted_registry.integrity.findings import Finding, FindingKind
from twisted_registry.integrity.walk import walk_files
from twisted_registry.oci.manifest import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.trash import TagChange, TrashedKind, TrashEntry
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from twisted_registry.integrity.blobs import Quarantine
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Bytes of a record.
_MAX_RECORD_BYTES = 64 * 1024


@define(eq=False)
class TrashCheck:
    """Checks that everyitem in the trash could be restored.

    :ivar quarantine: receives damaged items, which must not be restored.
    :ivar throttle: called with the number of bytes to read next; its awaitable delays the read.
    """

    driver: IStorageDriver
    quarantine: Quarantine
    throttle: Callable[[int], Awaitable[None]]

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield what is damaged, in the order of paths."""
        async for page in walk_files(self.driver, layout.TRASH):
            if isinstance(page, Finding):
                yield page
                continue
            for entry in page:
                finding = await self._examine(entry)
                if finding is not None:
                    yield finding

    async def _examine(self, entry: Entry) -> Finding | None:
        item = TrashEntry.parse(entry)
        if item is None:
            return Finding(FindingKind.FILE_STRAY, entry.path, "nothing reads it there")
        try:
            return await (self._blob if item.kind is TrashedKind.BLOB else self._record)(item)
        except PathNotFound:
            # It was restored or expired meanwhile.
            return None
        except StorageError as error:
            return Finding(
                FindingKind.FILE_UNREADABLE,
                entry.path,
                error.reason,
                item.digest,
                item.repository,
            )

    async def _blob(self, item: TrashEntry) -> Finding | None:
        digest = item.digest
        assert digest is not None
        found = await stored_digest(self.driver, item.path, digest.algorithm, self.throttle)
        if found is None or found[0] == digest:
            return None
        held, seen = found
        return Finding(
            FindingKind.TRASH_CORRUPT, item.path,
            f"its {seen.size} bytes have the digest {held}", digest,
            repair=lambda: self.quarantine.isolate(item.path),
        )  # fmt: skip

    async def _record(self, item: TrashEntry) -> Finding | None:
        content = await self.driver.get(item.path, _MAX_RECORD_BYTES)
        if item.kind is TrashedKind.TAG:
            whole = TagChange.from_bytes(content) is not None
        elif item.kind is TrashedKind.MANIFEST:
            whole = not content or is_media_type(content.decode("ascii", "replace"))
        else:
            whole = content.decode("ascii", "replace").strip() == str(item.digest)
        if whole:
            return None
        return Finding(
            FindingKind.RECORD_TORN, item.path, f"of a {item.kind.value} in the trash",
            item.digest, item.repository, repair=lambda: self.quarantine.isolate(item.path),
        )  # fmt: skip
