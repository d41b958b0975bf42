"""Purge of abandoned uploads (``storage.maintenance.uploadpurging``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.uploads import find_abandoned_uploads
from twisted_registry.storage.fallbacks import leftovers as find_leftovers

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.registry import Registry
    from twisted_registry.repository.uploads import AbandonedUpload

log = Logger()


@frozen
class UploadPurgeResult:
    """What one run did.

    :ivar found: abandoned uploads.
    :ivar removed: abandoned uploads that were removed; 0 in a dry run.
    :ivar failed: abandoned uploads that could not be removed.
    :ivar leftovers: unfinished files of crashed processes that were removed.
    """

    found: int
    removed: int
    failed: int
    leftovers: int


@define(eq=False, repr=False)
class UploadPurge:
    """Removes abandoned uploads of a registry.

    :ivar age: seconds without activity after which an upload is abandoned.
    :ivar dry_run: only log what would be removed.
    """

    registry: Registry
    clock: IReactorTime
    age: float
    dry_run: bool

    async def run(self) -> UploadPurgeResult:
        """Remove the uploads that are abandoned now. One that cannot be removed is skipped.

        :raises RegistryError: if the store fails otherwise.
        """
        before = self.clock.seconds() - self.age
        found = removed = failed = 0
        async for upload in find_abandoned_uploads(self.registry.driver, before):
            found += 1
            if self.dry_run:
                self._log_upload("would purge", upload)
                continue
            try:
                if await upload.remove():
                    removed += 1
                    self._log_upload("purged", upload)
            except RegistryError:
                # The storage error is logged already.
                failed += 1
        leftovers = 0 if self.dry_run else await self._remove_leftovers(before)
        log.info(
            "abandoned uploads found={found} purged={removed} failed={failed}, "
            "unfinished files removed={leftovers}",
            found=found, removed=removed, failed=failed, leftovers=leftovers,
        )  # fmt: skip
        return UploadPurgeResult(found, removed, failed, leftovers)

    @translate_storage_errors
    async def _remove_leftovers(self, before: float) -> int:
        return await find_leftovers(self.registry.driver).remove_leftovers(before)

    def _log_upload(self, what: str, upload: AbandonedUpload) -> None:
        log.info(
            "{what} upload id={id} repository={repository} idle_hours={hours:.0f}",
            what=what,
            id=upload.id,
            repository=upload.repository,
            hours=(self.clock.seconds() - upload.last_activity) / 3600,
        )
