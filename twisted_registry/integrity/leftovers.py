"""What crashes and the registry's own chores leave behind: uploads, files, lists, records.

The trash: could what lies there be brought back, as it was?
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.gc.delete_list import delete_torn_list, is_list_torn, read_delete_list
from twisted_registry.integrity.blobs import list_folder, stored_digest, walk_files
from twisted_registry.integrity.findings import Finding, FindingKind
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.registry import MIN_SECRET_BYTES
from twisted_registry.repository.trash import TagChangeRecord, parse_trash_path
from twisted_registry.repository.trash import TrashedKind as Thing
from twisted_registry.repository.uploads import find_abandoned_uploads
from twisted_registry.storage.fallbacks import leftovers
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from twisted_registry.integrity.blobs import Quarantine
    from twisted_registry.repository.trash import TrashedItem
    from twisted_registry.repository.uploads import AbandonedUpload
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Bytes of a secret.
_MAX_SECRET_BYTES = 1024


@define(eq=False)
class LeftoverCheck:
    """What lies in a store beside images.

    :ivar before: seconds since the epoch; what was touched later may be in use, and is passed over.
    """

    driver: IStorageDriver
    before: float

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield all that should not be there; what can not be read does not hide the rest."""
        folder, file = FindingKind.FOLDER_UNREADABLE, FindingKind.FILE_UNREADABLE
        checks = [(folder, self._uploads), (folder, self._leftovers), (file, self._list)]
        checks += [(file, self._secret), (folder, self._leases)]
        checks += [(folder, partial(self._strays, known)) for known in layout.KNOWN_FOLDERS]
        for unreadable, check in checks:
            try:
                async for finding in check():
                    yield finding
            except StorageError as error:
                yield Finding(unreadable, error.path, error.reason)

    async def _uploads(self) -> AsyncIterator[Finding]:
        try:
            async for upload in find_abandoned_uploads(self.driver, self.before):
                finding = await self._upload(upload)
                if finding is not None:
                    yield finding
        except RegistryError as error:
            yield Finding(
                FindingKind.FOLDER_UNREADABLE,
                layout.REPOSITORIES,
                f"not all uploads are seen: {error}",
            )

    async def _upload(self, upload: AbandonedUpload) -> Finding | None:
        path = layout.upload(upload.repository, upload.id)
        try:
            names = {entry.path for entry in await list_folder(self.driver, path)}
        except StorageError as error:
            return Finding(
                FindingKind.FOLDER_UNREADABLE, path, error.reason, None, upload.repository
            )
        missing = [name for name in ("data", "startedat") if name not in names]
        if not missing:
            # It waits for its client, or for the purge.
            return None
        return Finding(
            FindingKind.UPLOAD_INCOMPLETE, path, f"it has no {' and no '.join(missing)}",
            repository=upload.repository, repair=upload.remove,
        )  # fmt: skip

    async def _leftovers(self) -> AsyncIterator[Finding]:
        count = await leftovers(self.driver).remove_leftovers(self.before, dry_run=True)
        if count:
            yield Finding(
                FindingKind.LEFTOVERS,
                "",
                f"{count} unfinished files of crashes",
                repair=self._sweep,
            )

    async def _sweep(self) -> bool:
        return await leftovers(self.driver).remove_leftovers(self.before) > 0

    async def _list(self) -> AsyncIterator[Finding]:
        if await is_list_torn(self.driver):
            yield Finding(
                FindingKind.RECORD_TORN, layout.DELETE_LIST, "it counts for nothing",
                repair=partial(delete_torn_list, self.driver),
            )  # fmt: skip

    async def _secret(self) -> AsyncIterator[Finding]:
        try:
            secret = await self.driver.get(layout.UPLOAD_SECRET, _MAX_SECRET_BYTES)
        except PathNotFound:
            return
        if len(secret) < MIN_SECRET_BYTES:
            yield Finding(
                FindingKind.RECORD_TORN,
                layout.UPLOAD_SECRET,
                "it is made anew when it is needed next",
            )

    async def _leases(self) -> AsyncIterator[Finding]:
        try:
            published = await read_delete_list(self.driver)
        except StorageError:
            # Whose leases are in use can not be told; that much was reported.
            return
        for entry in await list_folder(self.driver, layout.LEASES):
            folder = layout.leases(entry.path)
            if published is not None and published.id == entry.path:
                continue
            if await self._last_change(folder, entry.modified) < self.before:
                yield Finding(
                    FindingKind.LEFTOVERS, folder, "leases of a list that is long gone",
                    repair=partial(self._delete, folder),
                )  # fmt: skip

    async def _last_change(self, folder: str, modified: int | None) -> float:
        """When something was put into a folder last; in a bucket its files alone tell."""
        if modified is None:
            times = [entry.modified or 0 for entry in await self.driver.walk(folder)]
            modified = max(times, default=0)
        return modified / 1e9

    async def _strays(self, folder: str) -> AsyncIterator[Finding]:
        """What somebody else put into a folder in which all names are known."""
        for entry in await list_folder(self.driver, folder):
            if entry.path not in layout.KNOWN_FOLDERS[folder]:
                path = f"{folder}/{entry.path}"
                yield Finding(FindingKind.FILE_STRAY, path, "nothing looks for it there")

    async def _delete(self, path: str) -> bool:
        with suppress(PathNotFound):
            await self.driver.delete(path)
        return True


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
                FindingKind.FILE_UNREADABLE,
                entry.path,
                error.reason,
                thing.digest,
                thing.repository,
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
