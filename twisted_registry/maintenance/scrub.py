"""Reads every blob again, slowly, and takes those away that have changed (bit rot).

What is taken away is answered 404, so that the next push of the same image brings it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.repository.checking.damage import Finding
from twisted_registry.repository.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.maintenance.repair import Repair
    from twisted_registry.repository.checking.blobs import StoredBlobs
    from twisted_registry.repository.checking.bookmark import Bookmark

log = Logger()

#: Seconds after which it is noted how far it has come.
_NOTED = 60.0


@frozen
class Scrubbed:
    """What a run did.

    :ivar files: that were read.
    :ivar size: their bytes, about.
    :ivar damaged: how many of them are not what they should be.
    :ivar quarantined: how many of those were taken away.
    """

    files: int = 0
    size: int = 0
    damaged: int = 0
    quarantined: int = 0


@define(eq=False)
class Scrub:
    """Goes through the blobs of a store, on from where the last run was stopped.

    :ivar bookmark: keeps where that was.
    """

    blobs: StoredBlobs
    repair: Repair
    bookmark: Bookmark
    clock: IReactorTime
    _found: list[Finding] = field(init=False, factory=list)

    @translated
    async def run(self) -> Scrubbed:
        """Read all that is stored; one at a time, for it is in no hurry."""
        self._found, files, size = [], 0, 0
        noted = self.clock.seconds()
        async for page in self.blobs.files(await self.bookmark.read()):
            if isinstance(page, Finding):
                self._tell([page])
                continue
            for entry in page:
                finding = await self.blobs.examine(entry)
                files, size = files + 1, size + (entry.size or 0)
                if finding is not None and not finding.harmless:
                    self._tell(await self.repair.take(finding))
                if self.clock.seconds() - noted >= _NOTED:
                    self._tell(await self.repair.settle())
                    await self.bookmark.write(entry.path)
                    noted = self.clock.seconds()
        self._tell(await self.repair.settle())
        await self.bookmark.remove()
        gone = sum(finding.repaired for finding in self._found)
        log.info(
            "blobs read again: {files} with {size} bytes, {damaged} damaged, {gone} of them "
            "quarantined",
            files=files, size=size, damaged=len(self._found), gone=gone,
        )  # fmt: skip
        return Scrubbed(files, size, len(self._found), gone)

    def _tell(self, settled: Iterable[Finding]) -> None:
        for finding in settled:
            self._found.append(finding)
            log.error(
                "{finding}{what}",
                finding=str(finding),
                what="; quarantined, and the next push of it brings it back"
                if finding.repaired
                else "",
            )
