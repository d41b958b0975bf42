"""What crashes and the registry's own chores leave behind: uploads, files, lists, records."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.errors import RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.abandoned import abandoned_uploads
from twisted_registry.repository.checking.damage import Finding, Kind
from twisted_registry.repository.checking.walking import everything
from twisted_registry.repository.condemned import is_torn, remove_torn
from twisted_registry.repository.registry import SECRET_LENGTH
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from twisted_registry.repository.abandoned import AbandonedUpload
    from twisted_registry.storage.interfaces import IStorageDriver

#: Bytes of a secret.
_SECRET_LIMIT = 1024


@define(eq=False)
class Remains:
    """What lies in a store beside images.

    :ivar before: seconds since the epoch; what was touched later may be in use, and is passed over.
    """

    driver: IStorageDriver
    before: float

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield all that should not be there."""
        try:
            async for upload in abandoned_uploads(self.driver, self.before):
                finding = await self._upload(upload)
                if finding is not None:
                    yield finding
        except RegistryError as error:
            yield Finding(
                Kind.FOLDER_UNREADABLE, layout.REPOSITORIES, f"not all uploads are seen: {error}"
            )
        leftovers = await self._leftovers()
        if leftovers is not None:
            yield leftovers
        for torn in await self._list(), await self._secret():
            if torn is not None:
                yield torn
        async for finding in self._leases():
            yield finding

    async def _upload(self, upload: AbandonedUpload) -> Finding | None:
        path = layout.upload(upload.repository, upload.id)
        try:
            names = {entry.path for entry in await everything(self.driver, path)}
        except StorageError as error:
            return Finding(Kind.FOLDER_UNREADABLE, path, error.reason, None, upload.repository)
        missing = [name for name in ("data", "startedat") if name not in names]
        if not missing:
            # It waits for its client, or for the purge.
            return None
        return Finding(
            Kind.UPLOAD_INCOMPLETE, path, f"it has no {' and no '.join(missing)}",
            repository=upload.repository, repair=upload.remove,
        )  # fmt: skip

    async def _leftovers(self) -> Finding | None:
        try:
            count = await self.driver.sweep(self.before, dry_run=True)
        except StorageError as error:
            return Finding(Kind.FOLDER_UNREADABLE, error.path, error.reason)
        if not count:
            return None
        return Finding(
            Kind.LEFTOVERS, "", f"{count} unfinished files of crashes", repair=self._sweep
        )

    async def _sweep(self) -> bool:
        return await self.driver.sweep(self.before) > 0

    async def _list(self) -> Finding | None:
        if not await is_torn(self.driver):
            return None
        return Finding(
            Kind.RECORD_TORN, layout.CONDEMNED, "it counts for nothing",
            repair=partial(remove_torn, self.driver),
        )  # fmt: skip

    async def _secret(self) -> Finding | None:
        try:
            if len(await self.driver.get(layout.UPLOAD_SECRET, _SECRET_LIMIT)) >= SECRET_LENGTH:
                return None
        except PathNotFound:
            return None
        return Finding(
            Kind.RECORD_TORN, layout.UPLOAD_SECRET, "it is made anew when it is needed next"
        )

    async def _leases(self) -> AsyncIterator[Finding]:
        for entry in await everything(self.driver, layout.LEASES):
            folder = layout.leases(entry.path)
            if entry.modified is None or entry.modified / 1e9 < self.before:
                yield Finding(
                    Kind.LEFTOVERS, folder, "leases of a list that is long gone",
                    repair=partial(self._delete, folder),
                )  # fmt: skip

    async def _delete(self, path: str) -> bool:
        with suppress(PathNotFound):
            await self.driver.delete(path)
        return True
