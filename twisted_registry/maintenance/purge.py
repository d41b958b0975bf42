"""Purge of abandoned uploads (``storage.maintenance.uploadpurging``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.clock import ClockJumps, time_before
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.uploads import find_abandoned_uploads
from twisted_registry.storage.fallbacks import leftovers as find_leftovers

if TYPE_CHECKING:
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

    :ivar age: seconds without activity after which an upload is abandoned, by the store's clock.
    :ivar dry_run: only log what would be removed.
    :ivar jumps: corrects ages after the clock was set.
    """

    registry: Registry
    age: float
    dry_run: bool
    jumps: ClockJumps = field(factory=ClockJumps.unwatched)

    async def run(self) -> UploadPurgeResult:
        """Remove the uploads that are abandoned now. One that cannot be removed is skipped.

        :raises RegistryError: if the store fails otherwise.
        :raises ClockWasSet: if the clock was set meanwhile.
        """
        self.jumps.look()
        known_jumps = self.jumps.count
        before = await time_before(self.registry.driver, self.age, self.jumps)
        found = removed = failed = 0
        async for upload in find_abandoned_uploads(self.registry.driver, before):
            found += 1
            if self.dry_run:
                self._log_upload("would purge", upload)
                continue
            self.jumps.check_unset(known_jumps)
            try:
                if await upload.remove():
                    removed += 1
                    self._log_upload("purged", upload)
            except RegistryError:
                # The storage error is logged already.
                failed += 1
        self.jumps.check_unset(known_jumps)
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
            hours=(upload.before + self.age - upload.last_activity) / 3600,
        )
