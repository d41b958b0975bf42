"""Brings back from the trash what a stored manifest turns out to need.

That can be so after a collector stalled for minutes between its last look at the time and one
removal, which is the one hole that its protocol leaves; or after a hand has restored links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.logger import Logger

from twisted_registry.repository import layout
from twisted_registry.repository.stamps import TrashReason
from twisted_registry.repository.trashed import TrashedKind

if TYPE_CHECKING:
    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.references import ReferenceDatabase
    from twisted_registry.repository.recall import Recall

log = Logger()


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
