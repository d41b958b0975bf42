"""Check what a store contains beside images.

Crashes and periodic tasks leave uploads, temporary files, lists and leases behind. The trash holds
items that must be restorable as they were.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.gc.delete_list import delete_torn_list, is_list_torn, read_delete_list
from twisted_registry.integrity.blobs import stored_digest
from twisted_registry.integrity.findings import Finding, FindingKind
from twisted_registry.integrity.walk import walk_files
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.media_types import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.inventory import list_folder
from twisted_registry.repository.trash import TagChange, TrashedKind, TrashEntry
from twisted_registry.repository.uploads import MIN_SECRET_BYTES, find_abandoned_uploads
from twisted_registry.storage.fallbacks import leftovers
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from twisted_registry.integrity.blobs import Quarantine
    from twisted_registry.repository.uploads import AbandonedUpload
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Bytes that are read of a secret, and of a record in the trash.
_MAX_SECRET_BYTES = 1024
_MAX_RECORD_BYTES = 64 * 1024


@define(eq=False)
class LeftoverCheck:
    """Checks what a store contains beside images.

    :ivar find_before: returns seconds since the epoch; what was modified later may be in use, and
        is skipped.
    """

    driver: IStorageDriver
    find_before: Callable[[], Awaitable[float]]
    _before: float = field(init=False, default=0.0)

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield all leftovers and stray files. What cannot be read does not hide the rest.

        :raises RegistryError: if the time of the store is needed and cannot be read.
        """
        self._before = await self.find_before()
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
            async for upload in find_abandoned_uploads(self.driver, self._before):
                finding = await self._upload(upload)
                if finding is not None:
                    yield finding
        except RegistryError as error:
            yield Finding(
                FindingKind.FOLDER_UNREADABLE,
                layout.REPOSITORIES,
                f"cannot list all uploads: {error}",
            )

    async def _upload(self, upload: AbandonedUpload) -> Finding | None:
        path = layout.upload_folder(upload.repository, upload.id)
        try:
            names = {entry.path for entry in await list_folder(self.driver, path)}
        except StorageError as error:
            return Finding(
                FindingKind.FOLDER_UNREADABLE, path, error.reason, None, upload.repository
            )
        missing = [name for name in ("data", "startedat") if name not in names]
        if not missing:
            # It waits for its client, or for the upload purge.
            return None
        return Finding(
            FindingKind.UPLOAD_INCOMPLETE, path, f"it has no {' and no '.join(missing)}",
            repository=upload.repository, repair=upload.remove,
        )  # fmt: skip

    async def _leftovers(self) -> AsyncIterator[Finding]:
        count = await leftovers(self.driver).remove_leftovers(self._before, dry_run=True)
        if count:
            yield Finding(
                FindingKind.LEFTOVERS,
                "",
                f"{count} temporary {'file' if count == 1 else 'files'} that a crash left",
                repair=self._sweep,
            )

    async def _sweep(self) -> bool:
        return await leftovers(self.driver).remove_leftovers(self._before) > 0

    async def _list(self) -> AsyncIterator[Finding]:
        if await is_list_torn(self.driver):
            yield Finding(
                FindingKind.RECORD_TORN, layout.DELETE_LIST, "it is ignored",
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
                "it is replaced when it is needed next",
            )

    async def _leases(self) -> AsyncIterator[Finding]:
        try:
            published = await read_delete_list(self.driver)
        except StorageError:
            # Unknown which leases are in use; the unreadable list was reported.
            return
        for entry in await list_folder(self.driver, layout.LEASES):
            folder = layout.leases_folder(entry.path)
            if published is not None and published.id == entry.path:
                continue
            changed_at = entry.modified_s
            if changed_at is None:
                # In a bucket only the files have times.
                files = await self.driver.walk(folder)
                changed_at = max((file.modified_s or 0 for file in files), default=0)
            if changed_at < self._before:
                yield Finding(
                    FindingKind.LEFTOVERS, folder, "leases of a list that no longer exists",
                    repair=partial(self._delete, folder),
                )  # fmt: skip

    async def _strays(self, folder: str) -> AsyncIterator[Finding]:
        """Yield unknown names in folders in which all names are known."""
        for entry in await list_folder(self.driver, folder):
            if entry.path not in layout.KNOWN_FOLDERS[folder]:
                path = f"{folder}/{entry.path}"
                yield Finding(FindingKind.FILE_STRAY, path, "nothing reads it there")

    async def _delete(self, path: str) -> bool:
        with suppress(PathNotFound):
            await self.driver.delete(path)
        return True


@define(eq=False)
class TrashCheck:
    """Checks that every item in the trash could be restored.

    :ivar quarantine: receives damaged items, which must not be restored.
    :ivar throttle: called with the number of bytes to read next; its awaitable delays the read.
    """

    driver: IStorageDriver
    quarantine: Quarantine
    throttle: Callable[[int], Awaitable[None]]

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield the damaged ones, in the order of paths."""
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
