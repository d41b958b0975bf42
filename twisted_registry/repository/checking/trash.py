"""The trash: could what lies there be brought back, as it was?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.manifest import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.checking.damage import Finding, Kind
from twisted_registry.repository.checking.hashing import stored_digest
from twisted_registry.repository.checking.walking import files
from twisted_registry.repository.tagrecord import TagRecord
from twisted_registry.repository.trashed import Kind as Thing
from twisted_registry.repository.trashed import told_by_path
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from twisted_registry.repository.checking.shelf import Shelf
    from twisted_registry.repository.trashed import Trashed
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Bytes of a record.
_LIMIT = 64 * 1024


@define(eq=False)
class TrashCheck:
    """What is kept of what was removed.

    :ivar shelf: where those go that could only do harm when they came back.
    :ivar pay: told of the bytes that will be read next; waits when they are too many.
    """

    driver: IStorageDriver
    shelf: Shelf
    pay: Callable[[int], Awaitable[None]]

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield all that is not whole, in the order of the paths."""
        async for page in files(self.driver, layout.TRASH):
            if isinstance(page, Finding):
                yield page
                continue
            for entry in page:
                finding = await self._examine(entry)
                if finding is not None:
                    yield finding

    async def _examine(self, entry: Entry) -> Finding | None:
        thing = told_by_path(entry)
        if thing is None:
            return Finding(Kind.FILE_STRAY, entry.path, "nothing looks for it there")
        try:
            return await (self._blob if thing.kind is Thing.BLOB else self._record)(thing)
        except PathNotFound:
            # It was brought back, or its time was over.
            return None
        except StorageError as error:
            return Finding(
                Kind.FILE_UNREADABLE, entry.path, error.reason, thing.digest, thing.repository
            )

    async def _blob(self, thing: Trashed) -> Finding | None:
        digest = thing.digest
        assert digest is not None
        found = await stored_digest(self.driver, thing.path, digest.algorithm, self.pay)
        if found is None or found[0] == digest:
            return None
        held, seen = found
        return Finding(
            Kind.TRASH_CORRUPT, thing.path, f"its {seen.size} bytes are those of {held}", digest,
            repair=lambda: self.shelf.take(thing.path),
        )  # fmt: skip

    async def _record(self, thing: Trashed) -> Finding | None:
        content = await self.driver.get(thing.path, _LIMIT)
        if thing.kind is Thing.TAG:
            whole = TagRecord.from_bytes(content) is not None
        elif thing.kind is Thing.MANIFEST:
            whole = not content or is_media_type(content.decode("ascii", "replace"))
        else:
            whole = content.decode("ascii", "replace").strip() == str(thing.digest)
        if whole:
            return None
        return Finding(
            Kind.RECORD_TORN, thing.path, f"of a {thing.kind.value} in the trash", thing.digest,
            thing.repository, repair=lambda: self.shelf.take(thing.path),
        )  # fmt: skip
