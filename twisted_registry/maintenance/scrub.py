"""Reads every blob again, slowly, and takes those away that have changed (bit rot).

What is taken away is answered 404, so that the next push of the same image brings it back. Which
tags need it is said before: a run that is stopped in between finds it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.errors import RegistryError
from twisted_registry.repository.checking.damage import Finding, Severity
from twisted_registry.repository.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.repair import Repair
    from twisted_registry.repository.checking.affected import TagsInNeed
    from twisted_registry.repository.checking.blobs import StoredBlobs
    from twisted_registry.repository.checking.bookmark import Bookmark

log = Logger()

#: Seconds after which it is noted how far it has come.
_NOTED = 60.0
#: Damaged blobs whose tags are looked for in one go, and affected tags that a result names.
_AT_ONCE = 100
_SHOWN = 100


@frozen
class Scrubbed:
    """What a run did.

    :ivar files: that were read.
    :ivar size: their bytes, about.
    :ivar damaged: how many of them are not what they should be.
    :ivar quarantined: how many of those were taken away.
    :ivar tags: how many tags need what is damaged.
    :ivar affected: the first of them, with their repositories; the log names all.
    """

    files: int = 0
    size: int = 0
    damaged: int = 0
    quarantined: int = 0
    tags: int = 0
    affected: tuple[str, ...] = ()


@define(eq=False)
class Scrub:
    """Goes through the blobs of a store, on from where the last run was stopped.

    :ivar bookmark: keeps where that was.
    :ivar in_need: tells which tags need what is damaged.
    """

    blobs: StoredBlobs
    repair: Repair
    bookmark: Bookmark
    in_need: TagsInNeed
    clock: IReactorTime
    _found: list[Finding] = field(init=False, factory=list)
    _unsaid: list[Digest] = field(init=False, factory=list)
    _tags: dict[str, None] = field(init=False, factory=dict)

    @translated
    async def run(self) -> Scrubbed:
        """Read all that is stored; one at a time, for it is in no hurry."""
        self._found, self._unsaid, self._tags, files, size = [], [], {}, 0, 0
        noted = self.clock.seconds()
        async for page in self.blobs.files(await self.bookmark.read()):
            if isinstance(page, Finding):
                self._tell([page])
                continue
            for entry in page:
                finding = await self.blobs.examine(entry)
                files, size = files + 1, size + (entry.size or 0)
                if finding is not None and finding.severity is Severity.DAMAGE:
                    await self._take(finding)
                if self.clock.seconds() - noted >= _NOTED:
                    await self._settle()
                    await self.bookmark.write(entry.path)
                    noted = self.clock.seconds()
        await self._settle()
        await self.bookmark.remove()
        gone = sum(finding.repaired for finding in self._found)
        log.info(
            "blobs read again: {files} with {size} bytes, {damaged} damaged, {gone} of them "
            "quarantined",
            files=files, size=size, damaged=len(self._found), gone=gone,
        )  # fmt: skip
        tags = tuple(self._tags)
        return Scrubbed(files, size, len(self._found), gone, len(tags), tags[:_SHOWN])

    async def _take(self, finding: Finding) -> None:
        if finding.digest is not None:
            self._unsaid.append(finding.digest)
        if len(self._unsaid) >= _AT_ONCE:
            await self._settle()
        self._tell(await self.repair.take(finding))

    async def _settle(self) -> None:
        if self._unsaid:
            await self._name_tags()
        self._tell(await self.repair.settle())

    async def _name_tags(self) -> None:
        digests, self._unsaid = self._unsaid, []
        try:
            async for tag in self.in_need.of(digests):
                self._tags[f"{tag.repository}:{tag.tag}"] = None
                log.error("affected tag: {tag}", tag=str(tag))
        except RegistryError as error:
            # What is damaged goes all the same.
            log.error("not all affected tags can be told: {reason}", reason=str(error))

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
