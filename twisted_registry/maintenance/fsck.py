"""The check of a whole store: every blob, every link, every manifest, and what lies beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from twisted_registry.repository.checking.damage import Finding, FindingKind, Severity
from twisted_registry.repository.failures import translate_storage_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.repair import Repairer
    from twisted_registry.repository.checking.blobs import BlobCheck
    from twisted_registry.repository.checking.trouble import AffectedTag

#: What is wrong with the bytes of a blob.
_CORRUPT_KINDS = {FindingKind.BLOB_CORRUPT, FindingKind.BLOB_EMPTY, FindingKind.FILE_UNREADABLE}
#: As what a finding counts that is not repaired.
_COUNTER_NAMES = {
    Severity.DAMAGE: "damaged",
    Severity.SPARSE: "sparse",
    Severity.HARMLESS: "harmless",
}


class FsckObserver:
    """Hears what a check does; this one does nothing.

    :cvar counts: whether it wants to know how much there is to be read, which takes a look at
        every blob.
    """

    counts = False

    def read(self, done: int, total: int) -> None:
        """So many bytes of blobs were read, of so many; 0 if nobody counted."""

    def repository_started(self, name: str) -> None:
        """A repository is looked through."""

    def found(self, finding: Finding) -> None:
        """Something is wrong, and was repaired or not."""


@frozen
class FsckResult:
    """What a check found.

    :ivar files: blobs and manifests that were read.
    :ivar size: their bytes.
    :ivar repositories: that were looked through.
    :ivar damaged: findings that clients notice and that are still so.
    :ivar sparse: indexes without some of their children, which the configuration allows.
    :ivar harmless: findings that nobody notices and that are still so.
    :ivar repaired: those that were put right.
    :ivar tags: that can not be pulled whole.
    """

    files: int
    size: int
    repositories: int
    damaged: int
    sparse: int
    harmless: int
    repaired: int
    tags: tuple[AffectedTag, ...]


@define(eq=False)
class Fsck:
    """One check of a store.

    :ivar corrupt: filled with the blobs that are damaged, before repositories are looked at.
    :ivar others: what else is looked at, after the blobs: each yields findings.
    """

    blobs: BlobCheck
    corrupt: set[Digest]
    repair: Repairer
    observer: FsckObserver
    checks: list[Callable[[], AsyncIterator[Finding]]] = field(factory=list)
    tags: list[AffectedTag] = field(factory=list)
    _files: int = field(init=False, default=0)
    _size: int = field(init=False, default=0)
    _repositories: int = field(init=False, default=0)
    _total: int = field(init=False, default=0)
    _counts: dict[str, int] = field(
        init=False, factory=lambda: dict.fromkeys((*_COUNTER_NAMES.values(), "repaired"), 0)
    )
    _repaired_paths: set[str] = field(init=False, factory=set)

    @translate_storage_errors
    async def run(self) -> FsckResult:
        """Look at everything."""
        if self.observer.counts:
            async for page in self.blobs.files():
                if not isinstance(page, Finding):
                    self._total += sum(entry.size or 0 for entry in page)
        await self._read_blobs()
        for findings in self.checks:
            async for finding in findings():
                await self._repair(finding)
            self._count_findings(await self.repair.repair_waiting())
        tags = tuple(tag for tag in self.tags if not tag.link or tag.link not in self._repaired_paths)
        return FsckResult(self._files, self._size, self._repositories, **self._counts, tags=tags)

    def repository_started(self, name: str) -> None:
        """Count a repository."""
        self._repositories += 1
        self.observer.repository_started(name)

    async def _read_blobs(self) -> None:
        async for page in self.blobs.files():
            if isinstance(page, Finding):
                await self._repair(page)
                continue

            for finding in await self.blobs.examine_all(page, self._count_read):
                if finding.kind in _CORRUPT_KINDS and finding.digest is not None:
                    self.corrupt.add(finding.digest)
                await self._repair(finding)
        self._count_findings(await self.repair.repair_waiting())

    def _count_read(self, size: int) -> None:
        self._files += 1
        self._size += size
        self.observer.read(self._size, self._total)

    async def _repair(self, finding: Finding) -> None:
        self._count_findings(await self.repair.submit(finding))

    def _count_findings(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            if finding.repaired:
                self._counts["repaired"] += 1
                self._repaired_paths.add(finding.path)
            else:
                self._counts[_COUNTER_NAMES[finding.severity]] += 1
            self.observer.found(finding)
