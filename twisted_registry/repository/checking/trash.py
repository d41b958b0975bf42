"""The trash: could what lies there be brought back, as it was?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.manifest import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.checking.damage import Finding, FindingKind
from twisted_registry.repository.checking.hashing import stored_digest
from twisted_registry.repository.checking.walking import walk_files
from twisted_registry.repository.tagrecord import TagChangeRecord
from twisted_registry.repository.trashed import TrashedKind as Thing
from twisted_registry.repository.trashed import parse_trash_path
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from twisted_registry.repository.checking.shelf import Quarantine
    from twisted_registry.repository.trashed import TrashedItem
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Bytes of a record.
_MAX_RECORD_BYTES = 64 * 1024


@define(eq=False)
class TrashCheck:
    """What is kept of what was removed.

    :ivar shelf: where those go that could only do harm when they came back.
    :ivar pay: told of the bytes that will be read next; waits when they are too many.
    """

    driver: IStorageDriver
    quarantine: Quarantine
    throttle: Callable[[int], Awaitable[None]]

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield all that is not whole, in the order of the paths."""
        async for page in walk_files(self.driver, layout.TRASH):
            if isinstance(page, Finding):
                yield page
                continue
            for entry in page:
                finding = await self._examine(entry)
                if finding is not None:
                    yield finding

    async def _examine(self, entry: Entry) -> Finding | None:
        thing = parse_trash_path(entry)
        if thing is None:
            return Finding(FindingKind.FILE_STRAY, entry.path, "nothing looks for it there")
        try:
            return await (self._blob if thing.kind is Thing.BLOB else self._record)(thing)
        except PathNotFound:
            # It was brought back, or its time was over.
            return None
        except StorageError as error:
            return Finding(
                FindingKind.FILE_UNREADABLE, entry.path, error.reason, thing.digest, thing.repository
            )

    async def _blob(self, thing: TrashedItem) -> Finding | None:
        digest = thing.digest
        assert digest is not None
        found = await stored_digest(self.driver, thing.path, digest.algorithm, self.throttle)
        if found is None or found[0] == digest:
            return None
        held, seen = found
        return Finding(
            FindingKind.TRASH_CORRUPT, thing.path, f"its {seen.size} bytes are those of {held}", digest,
            repair=lambda: self.quarantine.isolate(thing.path),
        )  # fmt: skip

    async def _record(self, thing: TrashedItem) -> Finding | None:
        content = await self.driver.get(thing.path, _MAX_RECORD_BYTES)
        if thing.kind is Thing.TAG:
            whole = TagChangeRecord.from_bytes(content) is not None
        elif thing.kind is Thing.MANIFEST:
            whole = not content or is_media_type(content.decode("ascii", "replace"))
        else:
            whole = content.decode("ascii", "replace").strip() == str(thing.digest)
        if whole:
            return None
        return Finding(
            FindingKind.RECORD_TORN, thing.path, f"of a {thing.kind.value} in the trash", thing.digest,
            thing.repository, repair=lambda: self.quarantine.isolate(thing.path),
        )  # fmt: skip
