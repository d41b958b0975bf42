"""Reads every blob again, slowly, and takes those away that have changed (bit rot).

What is taken away is answered 404, so that the next push of the same image brings it back. Which
tags need it is said before: a run that is stopped in between finds it again.

How far a run through a store has come, for the next one to go on from.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.integrity.findings import Finding, Severity
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.integrity.affected import AffectedTags
    from twisted_registry.integrity.blobs import BlobCheck
    from twisted_registry.integrity.fsck import Repairer
    from twisted_registry.oci.digest import Digest

    # @@EMPTY
    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: Seconds after which it is noted how far it has come.
_POSITION_INTERVAL_S = 60.0
#: Damaged blobs whose tags are looked for in one go, and affected tags that a result names.
_DIGESTS_AT_ONCE = 100
_MAX_TAGS_SHOWN = 100


@frozen
class ScrubResult:
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

    blobs: BlobCheck
    repair: Repairer
    position: ScrubPosition
    affected_tags: AffectedTags
    clock: IReactorTime
    _found: list[Finding] = field(init=False, factory=list)
    _unreported: list[Digest] = field(init=False, factory=list)
    _tags: dict[str, None] = field(init=False, factory=dict)

    @translate_storage_errors
    async def run(self) -> ScrubResult:
        """Read all that is stored; one at a time, for it is in no hurry."""
        self._found, self._unreported, self._tags, files, size = [], [], {}, 0, 0
        position_saved_at = self.clock.seconds()
        async for page in self.blobs.files(await self.position.read()):
            if isinstance(page, Finding):
                self._log_findings([page])
                continue
            for entry in page:
                finding = await self.blobs.examine(entry)
                files, size = files + 1, size + (entry.size or 0)
                if finding is not None and finding.severity is Severity.DAMAGE:
                    await self._repair(finding)
                if self.clock.seconds() - position_saved_at >= _POSITION_INTERVAL_S:
                    await self._repair_waiting()
                    await self.position.write(entry.path)
                    position_saved_at = self.clock.seconds()
        await self._repair_waiting()
        await self.position.remove()
        gone = sum(finding.repaired for finding in self._found)
        log.info(
            "blobs read again: {files} with {size} bytes, {damaged} damaged, {gone} of them "
            "quarantined",
            files=files, size=size, damaged=len(self._found), gone=gone,
        )  # fmt: skip
        tags = tuple(self._tags)
        return ScrubResult(files, size, len(self._found), gone, len(tags), tags[:_MAX_TAGS_SHOWN])

    async def _repair(self, finding: Finding) -> None:
        if finding.digest is not None:
            self._unreported.append(finding.digest)
        if len(self._unreported) >= _DIGESTS_AT_ONCE:
            await self._repair_waiting()
        self._log_findings(await self.repair.submit(finding))

    async def _repair_waiting(self) -> None:
        if self._unreported:
            await self._log_affected_tags()
        self._log_findings(await self.repair.repair_waiting())

    async def _log_affected_tags(self) -> None:
        digests, self._unreported = self._unreported, []
        try:
            async for tag in self.affected_tags.of(digests):
                self._tags[f"{tag.repository}:{tag.tag}"] = None
                log.error("affected tag: {tag}", tag=str(tag))
        except RegistryError as error:
            # What is damaged goes all the same.
            log.error("not all affected tags can be told: {reason}", reason=str(error))

    def _log_findings(self, settled: Iterable[Finding]) -> None:
        for finding in settled:
            self._found.append(finding)
            log.error(
                "{finding}{what}",
                finding=str(finding),
                what="; quarantined, and the next push of it brings it back"
                if finding.repaired
                else "",
            )


#: Bytes of a path.
_MAX_PATH_BYTES = 4096


@define(eq=False)
class ScrubPosition:
    """The bookmark of the scrub. A power cut may lose it: then a run begins anew."""

    driver: IStorageDriver

    async def read(self) -> str:
        """The path after which to go on; empty to begin."""
        with suppress(PathNotFound):
            return (await self.driver.get(layout.SCRUB, _MAX_PATH_BYTES)).decode("utf-8", "replace")
        return ""

    async def write(self, path: str) -> None:
        """Note how far it is."""
        await self.driver.put(layout.SCRUB, path.encode("utf-8"), durable=False)

    async def remove(self) -> None:
        """It is through."""
        with suppress(PathNotFound):
            await self.driver.delete(layout.SCRUB)
