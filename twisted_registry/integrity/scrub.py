"""The scrub: read every blob again at a bounded rate, and quarantine damaged ones (bit rot).

A quarantined blob is answered 404, so the next push of the image stores it again. The tags that
need it are logged before it is moved, so that a run that is stopped in between finds and logs them
again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.logger import Logger

from twisted_registry.integrity.findings import Finding, Severity
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.integrity.affected import AffectedTags
    from twisted_registry.integrity.blobs import BlobCheck
    from twisted_registry.integrity.fsck import Repairer
    from twisted_registry.oci.digest import Digest

log = Logger()

#: Seconds after which it is stored how far a run has come, and findings that wait are repaired.
_POSITION_INTERVAL_S = 60.0
#: Damaged blobs whose tags are looked for at once.
_DIGESTS_AT_ONCE = 100
#: Affected tags that a result names.
_MAX_TAGS_SHOWN = 100
#: Bytes of the stored path up to which a run has come.
_MAX_PATH_BYTES = 4096


@define
class ScrubResult:
    """The result of a run.

    :ivar files: number of files read.
    :ivar size: their size in bytes, as listed.
    :ivar damaged: number of damaged files.
    :ivar quarantined: number of files moved to the quarantine.
    :ivar tags: number of tags that need a damaged file.
    :ivar affected: the first of these as ``repository:tag``; the log names all.
    """

    files: int = 0
    size: int = 0
    damaged: int = 0
    quarantined: int = 0
    tags: int = 0
    affected: tuple[str, ...] = ()


@define(eq=False)
class Scrub:
    """Reads the blobs of a store, from where the last run was stopped.

    How far a run has come is stored. If a power cut loses it, the next run starts over.

    :ivar affected_tags: finds the tags that need a damaged blob.
    :ivar on_read: called with the result so far when a file was read.
    """

    blobs: BlobCheck
    repair: Repairer
    affected_tags: AffectedTags
    clock: IReactorTime
    on_read: Callable[[ScrubResult], object] = lambda _: None
    _result: ScrubResult = field(init=False, factory=ScrubResult)
    _unreported: list[Digest] = field(init=False, factory=list)
    _tags: dict[str, None] = field(init=False, factory=dict)

    @translate_storage_errors
    async def run(self) -> ScrubResult:
        """Read all blobs once, one at a time.

        :raises RegistryError: if the store cannot be listed.
        """
        self._result, self._unreported, self._tags = ScrubResult(), [], {}
        result = self._result
        position_saved_at = self.clock.seconds()
        async for page in self.blobs.files(await self._stored_position()):
            if isinstance(page, Finding):
                self._log_findings([page])
                continue
            for entry in page:
                finding = await self.blobs.examine(entry)
                result.files += 1
                result.size += entry.size or 0
                self.on_read(result)
                if finding is not None and finding.severity is Severity.DAMAGE:
                    await self._repair(finding)
                if self.clock.seconds() - position_saved_at >= _POSITION_INTERVAL_S:
                    await self._repair_waiting()
                    await self._save_position(entry.path)
                    position_saved_at = self.clock.seconds()
        await self._repair_waiting()
        await self._delete_position()
        log.info(
            "scrub: read {files} blobs ({size} bytes), {damaged} damaged, {gone} quarantined",
            files=result.files, size=result.size, damaged=result.damaged, gone=result.quarantined,
        )  # fmt: skip
        result.tags, result.affected = len(self._tags), tuple(self._tags)[:_MAX_TAGS_SHOWN]
        return result

    async def _stored_position(self) -> str:
        """Return the path after which the run starts; empty for the beginning."""
        position = b""
        try:
            position = await self.blobs.driver.get(layout.SCRUB, _MAX_PATH_BYTES)
        except PathNotFound:
            pass
        except StorageError as error:
            log.error("scrub: cannot read its position, starting over: {error}", error=str(error))
        return position.decode("utf-8", "replace")

    async def _save_position(self, path: str) -> None:
        try:
            await self.blobs.driver.put(layout.SCRUB, path.encode("utf-8"), durable=False)
        except StorageError as error:
            # Without it, a run that is stopped starts over.
            log.warn("scrub: cannot store its position: {error}", error=str(error))

    async def _delete_position(self) -> None:
        try:
            await self.blobs.driver.delete(layout.SCRUB)
        except PathNotFound:
            pass
        except StorageError as error:
            # The next run reads only the blobs after it.
            log.error("scrub: cannot delete its position: {error}", error=str(error))

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
            # The damaged blobs are quarantined nevertheless.
            log.error("cannot find all affected tags: {reason}", reason=str(error))

    def _log_findings(self, settled: Iterable[Finding]) -> None:
        for finding in settled:
            self._result.damaged += 1
            self._result.quarantined += finding.repaired
            log.error(
                "{finding}{what}",
                finding=str(finding),
                what="; quarantined, the next push stores it again" if finding.repaired else "",
            )
