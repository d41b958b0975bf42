"""Expire the trash (``storage.maintenance.trash.keep``), and restore needed content from it.

The trash has needed content after the collector stalled between its last check of the time and a
removal, see :mod:`twisted_registry.gc.gate`, or after links were restored by hand. So the store is
marked before bytes are removed from the trash for good, and reachable content is restored.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.gc.mark import CollectionFailed
from twisted_registry.gc.reference_db import retry_if_lost
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.clock import ClockJumps, time_before
from twisted_registry.repository.trash import TrashedKind, TrashReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.gc.mark import MarkPhase
    from twisted_registry.gc.reference_db import ReferenceDatabase
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.trash import Trash, TrashEntry

log = Logger()

#: The latest records of each tag that are kept, at most.
_MAX_TAG_RECORDS = 1000
#: Needed items that could not be restored, after which no other is tried.
_MAX_UNRESTORED = 100


@frozen
class TrashExpiryResult:
    """What one run did.

    :ivar removed: items removed for good.
    :ivar size: bytes of the blobs and manifests among them.
    :ivar back: blobs and manifests restored because a stored manifest needs them.
    :ivar failed: items that could not be removed, because of the store.
    """

    removed: int
    size: int
    back: int
    failed: int = 0


@define(eq=False)
class TrashExpiry:
    """Expires the trash of one store.

    :ivar mark_phase: finds the needed content.
    :ivar keep: seconds for which items stay in the trash.
    :ivar progress: called with the number of items seen so far.
    :ivar jumps: corrects ages after the clock was set.
    """

    trash: Trash
    mark_phase: MarkPhase
    keep: float
    progress: Callable[[int], object] = field(default=lambda _: None)
    jumps: ClockJumps = field(factory=ClockJumps.unwatched)

    async def run(self) -> TrashExpiryResult:
        """Remove items older than :attr:`keep`, and restore what is needed.

        Blobs and manifests stay if the store cannot be marked, or if what is needed cannot be
        restored. Items that cannot be removed do not keep others.

        :raises RegistryError: if the trash cannot be listed.
        :raises ClockWasSet: if the clock was set meanwhile.
        """
        await self.mark_phase.references.use_file()
        self.jumps.look()
        known_jumps = self.jumps.count
        before = await time_before(self.trash.driver, self.keep, self.jumps)
        removed = size = seen = failed = 0
        restored: set[Digest] | None = None
        keeps_blobs = False
        tag_records = _TagRecordLimiter()
        async for items in self.trash.pages():
            seen += len(items)
            self.progress(seen)
            expired = [item for item in items if item.since < before]
            if restored is None and any(item.kind is TrashedKind.BLOB for item in expired):
                # Once, before the first bytes are removed: no collection may have run since.
                restored = set()
                try:
                    restored, unrestored = await retry_if_lost(self._restore_needed)
                    keeps_blobs = bool(unrestored)
                except (CollectionFailed, RegistryError) as error:
                    keeps_blobs = True
                    log.error("blobs stay in the trash, they may be needed: {error}", error=error)
            doomed = [item for item in expired if not restored or item.digest not in restored]
            if keeps_blobs:
                failed += sum(item.kind is TrashedKind.BLOB for item in doomed)
                doomed = [item for item in doomed if item.kind is not TrashedKind.BLOB]
            doomed += tag_records.excess(items, set(expired))
            try:
                if doomed:
                    self.jumps.check_unset(known_jumps)
                    await self.trash.remove_entries(doomed)
            except RegistryError:
                # The storage error is logged already. All others were tried.
                remaining = await self.trash.remaining_entries(doomed)
                failed += len(remaining)
                doomed = [item for item in doomed if item not in remaining]
            removed += len(doomed)
            size += sum(item.size for item in doomed if item.kind is TrashedKind.BLOB)
        log.info(
            "trash expired removed={removed} bytes={size} restored={restored} failed={failed}",
            removed=removed, size=size, restored=len(restored or ()), failed=failed,
        )  # fmt: skip
        return TrashExpiryResult(removed, size, len(restored or ()), failed)

    async def _restore_needed(self) -> tuple[set[Digest], set[Digest]]:
        """Restore needed content, and repeat: restored manifests may need more.

        :returns: as :func:`restore_needed`.
        """
        restored: set[Digest] = set()
        while True:
            await self.mark_phase.mark(0.0)
            found, failed = await restore_needed(self.trash, self.mark_phase.references)
            restored |= found
            if not found:
                return restored, failed

    def close(self) -> Deferred[None]:
        """Close the database of references."""
        return self.mark_phase.references.close()


@define(eq=False)
class _TagRecordLimiter:
    """Finds excess records of tags. They arrive tag by tag, in the order of time."""

    _folder: str = field(init=False, default="")
    _latest: deque[TrashEntry] = field(init=False, factory=deque)

    def excess(self, items: Sequence[TrashEntry], expired: set[TrashEntry]) -> list[TrashEntry]:
        """Return excess records of this batch or earlier ones, besides the expired ones."""
        found = []
        for item in items:
            if item.kind is not TrashedKind.TAG or item in expired:
                continue
            folder = layout.trashed_tag_folder(item.repository, item.tag)
            if folder != self._folder:
                self._folder = folder
                self._latest.clear()
            self._latest.append(item)
            if len(self._latest) > _MAX_TAG_RECORDS:
                found.append(self._latest.popleft())
        return found


async def restore_needed(
    trash: Trash, references: ReferenceDatabase
) -> tuple[set[Digest], set[Digest]]:
    """Restore what the last mark reached and the store lacks.

    Links of repositories to it that the collector removed are restored as well.

    :returns: what was restored, and what could not be restored because of the store.
    :raises RegistryError: if the trash cannot be listed, or so much could not be restored that the
        store must be broken.
    """
    restored: set[Digest] = set()
    failed: set[Digest] = set()
    async for items in trash.pages(layout.TRASHED_BLOBS):
        digests = {item.digest for item in items if item.digest is not None}
        unreachable = set(await references.unreachable(sorted(digests)))
        for digest in sorted(digests - unreachable):
            try:
                if await _restore_missing_blob(trash, digest):
                    restored.add(digest)
            except RegistryError:
                log.error("not restored from the trash, but needed: digest={digest}", digest=digest)
                failed.add(digest)
                if len(failed) >= _MAX_UNRESTORED:
                    raise
    if restored:
        failed |= await _restore_links(trash, restored)
    return restored, failed


async def _restore_missing_blob(trash: Trash, digest: Digest) -> bool:
    """Restore a blob or manifest unless the store has it; return whether it was restored."""
    if await trash.blob_size(digest) is not None or await trash.restore_blob(digest) is None:
        return False
    log.warn("restored from the trash, still needed: digest={digest}", digest=digest)
    return True


async def _restore_links(trash: Trash, blobs: set[Digest]) -> set[Digest]:
    """Restore the links to blobs that the collector removed; return those that failed."""
    failed: set[Digest] = set()
    async for items in trash.pages(layout.TRASHED_REPOSITORIES):
        for item in items:
            if (
                item.kind is TrashedKind.LAYER
                and item.digest in blobs
                and item.entry_name.reason is TrashReason.COLLECTED
            ):
                try:
                    await trash.restore_layer(item.repository, item.digest)
                except RegistryError:
                    # The storage error is logged already.
                    failed.add(item.digest)
    return failed
