"""Empties the trash of what has been there for long enough (``storage.maintenance.trash.keep``)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.repository import layout
from twisted_registry.repository.trashed import TrashedKind, TrashedItem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.marking import MarkPhase
    from twisted_registry.maintenance.needed import TrashRecovery
    from twisted_registry.repository.removal import Sweeper

log = Logger()

#: Records of one tag that are kept at most, the latest.
_MAX_TAG_RECORDS = 1000


@frozen
class TrashExpiryResult:
    """What one run did.

    :ivar removed: things that are gone for good.
    :ivar size: bytes of the blobs and manifests among them.
    :ivar back: blobs and manifests that a stored manifest needs, and that came back instead.
    """

    removed: int
    size: int
    back: int


@define(eq=False)
class TrashExpiry:
    """Empties the trash of one store.

    :ivar marking: finds out what is needed.
    :ivar removal: tells what time it is for the store.
    :ivar keep: seconds for which things stay in the trash.
    :ivar progress: told how many things were looked at.
    """

    mark_phase: MarkPhase
    recovery: TrashRecovery
    sweeper: Sweeper
    keep: float
    progress: Callable[[int], object] = field(default=lambda _: None)

    async def run(self) -> TrashExpiryResult:
        """Remove what is older than :attr:`keep`, but bring back what is needed.

        :raises CollectionFailed: if what is needed can not be told; then all stays.
        """
        before = await self.sweeper.store_time() - self.keep
        removed = size = seen = 0
        back: set[Digest] | None = None
        contents = self.recovery.recall.contents
        tag_records = _TagRecordLimiter()
        async for items in contents.pages():
            seen += len(items)
            self.progress(seen)
            expired = [item for item in items if item.entry_name.seconds < before]
            if back is None and any(item.kind is TrashedKind.BLOB for item in expired):
                # Once, before the first bytes go: it may be that nobody else has looked.
                back = await self._restore_needed()
            gone = [item for item in expired if not back or item.digest not in back]
            gone += tag_records.excess(items, set(expired))
            if gone:
                await contents.remove(gone)
            removed += len(gone)
            size += sum(item.size for item in gone if item.kind is TrashedKind.BLOB)
        log.info(
            "trash: {removed} things removed for good ({size} bytes), {back} brought back",
            removed=removed, size=size, back=len(back or ()),
        )  # fmt: skip
        return TrashExpiryResult(removed, size, len(back or ()))

    async def _restore_needed(self) -> set[Digest]:
        """Bring back what is needed: again and again, since manifests may be among it."""
        back: set[Digest] = set()
        while True:
            await self.mark_phase.mark(0.0)
            found = await self.recovery.restore_needed()
            if not found:
                return back
            back |= found


@define(eq=False)
class _TagRecordLimiter:
    """Finds records of tags that are too many; they come tag by tag, in the order of time."""

    _folder: str = field(init=False, default="")
    _latest: deque[TrashedItem] = field(init=False, factory=deque)

    def excess(self, items: Sequence[TrashedItem], expired: set[TrashedItem]) -> list[TrashedItem]:
        """What is to go of the next batch, or of the batches before, besides what is expired."""
        found = []
        for item in items:
            if item.kind is not TrashedKind.TAG or item in expired:
                continue
            folder = layout.trashed_tag(item.repository, item.tag)
            if folder != self._folder:
                self._folder = folder
                self._latest.clear()
            self._latest.append(item)
            if len(self._latest) > _MAX_TAG_RECORDS:
                found.append(self._latest.popleft())
        return found
