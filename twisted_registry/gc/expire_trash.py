"""Empties the trash of what has been there for long enough (``storage.maintenance.trash.keep``).

Brings back from the trash what a stored manifest turns out to need.

That can be so after a collector stalled for minutes between its last look at the time and one
removal, which is the one hole that its protocol leaves; or after a hand has restored links.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.repository import layout
from twisted_registry.repository.trash import TrashedItem, TrashedKind, TrashReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.gc.mark import MarkPhase

    # @@EMPTY
    from twisted_registry.gc.reference_db import ReferenceDatabase
    from twisted_registry.gc.sweep import Sweeper
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.recall import Recall

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


@define(eq=False)
class TrashRecovery:
    """Goes through the trash after a mark."""

    recall: Recall
    references: ReferenceDatabase

    async def restore_needed(self) -> set[Digest]:
        """Bring back what is alive by the last mark, and gone; return what that was.

        The links of repositories to it that the collector took come back as well.
        """
        back: set[Digest] = set()
        async for items in self.recall.contents.pages(layout.TRASHED_BLOBS):
            digests = {item.digest for item in items if item.digest is not None}
            unreachable = set(await self.references.unreachable(sorted(digests)))
            for digest in sorted(digests - unreachable):
                if await self.recall.blob_size(digest) is not None:
                    continue
                if await self.recall.restore_blob(digest) is not None:
                    log.warn("{digest} is needed and came back from the trash", digest=str(digest))
                    back.add(digest)
        if back:
            await self._link(back)
        return back

    async def _link(self, back: set[Digest]) -> None:
        async for items in self.recall.contents.pages(layout.TRASHED_REPOSITORIES):
            for item in items:
                if (
                    item.kind is TrashedKind.LAYER
                    and item.digest in back
                    and item.entry_name.reason is TrashReason.COLLECTED
                ):
                    await self.recall.restore_layer(item.repository, item.digest)
