"""Removes uploads that nobody went on with (``storage.maintenance.uploadpurging``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.registry import Registry
    from twisted_registry.repository.uploads import AbandonedUpload

log = Logger()


@frozen
class UploadPurgeResult:
    """What one run did.

    :ivar found: abandoned uploads.
    :ivar removed: those that are gone; none in a dry run.
    :ivar failed: those that could not be removed.
    :ivar leftovers: unfinished files of crashes that are gone.
    """

    found: int
    removed: int
    failed: int
    leftovers: int


@define(eq=False, repr=False)
class UploadPurge:
    """One run after another over all uploads of a registry.

    :ivar age: seconds since an upload was last touched after which it is abandoned.
    :ivar dry_run: only say what would go.
    """

    registry: Registry
    clock: IReactorTime
    age: float
    dry_run: bool

    async def run(self) -> UploadPurgeResult:
        """Remove what is abandoned now; one that can not be removed does not keep the rest."""
        before = self.clock.seconds() - self.age
        found = removed = failed = 0
        async for upload in self.registry.find_abandoned_uploads(before):
            found += 1
            if self.dry_run:
                self._log_upload("would purge", upload)
                continue
            try:
                if await upload.remove():
                    removed += 1
                    self._log_upload("purged", upload)
            except RegistryError:
                # The cause is in the log already.
                failed += 1
        leftovers = 0 if self.dry_run else await self.registry.remove_leftovers(before)
        log.info(
            "uploads that nobody went on with: {found} found, {removed} purged, {failed} failed; "
            "{leftovers} unfinished files of crashes removed",
            found=found, removed=removed, failed=failed, leftovers=leftovers,
        )  # fmt: skip
        return UploadPurgeResult(found, removed, failed, leftovers)

    def _log_upload(self, what: str, upload: AbandonedUpload) -> None:
        log.info(
            "{what} upload {id} of {repository}, idle for {hours:.0f} h",
            what=what,
            id=upload.id,
            repository=upload.repository,
            hours=(self.clock.seconds() - upload.last_activity) / 3600,
        )
