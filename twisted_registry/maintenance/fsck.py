"""The check of a whole store: every blob, every link, every manifest, and what lies beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from twisted_registry.repository.checking.damage import Finding, Kind, Severity
from twisted_registry.repository.failures import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.repair import Repair
    from twisted_registry.repository.checking.blobs import StoredBlobs
    from twisted_registry.repository.checking.trouble import AffectedTag

#: What is wrong with the bytes of a blob.
_CORRUPT = {Kind.BLOB_CORRUPT, Kind.BLOB_EMPTY, Kind.FILE_UNREADABLE}
#: As what a finding counts that is not repaired.
_COUNTED = {
    Severity.DAMAGE: "damaged",
    Severity.SPARSE: "sparse",
    Severity.HARMLESS: "harmless",
}


class Watcher:
    """Hears what a check does; this one does nothing.

    :cvar counts: whether it wants to know how much there is to be read, which takes a look at
        every blob.
    """

    counts = False

    def read(self, done: int, total: int) -> None:
        """So many bytes of blobs were read, of so many; 0 if nobody counted."""

    def entering(self, name: str) -> None:
        """A repository is looked through."""

    def found(self, finding: Finding) -> None:
        """Something is wrong, and was repaired or not."""


@frozen
class Checked:
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

    blobs: StoredBlobs
    corrupt: set[Digest]
    repair: Repair
    watcher: Watcher
    others: list[Callable[[], AsyncIterator[Finding]]] = field(factory=list)
    tags: list[AffectedTag] = field(factory=list)
    _files: int = field(init=False, default=0)
    _size: int = field(init=False, default=0)
    _repositories: int = field(init=False, default=0)
    _total: int = field(init=False, default=0)
    _counts: dict[str, int] = field(
        init=False, factory=lambda: dict.fromkeys((*_COUNTED.values(), "repaired"), 0)
    )
    _mended: set[str] = field(init=False, factory=set)

    @translated
    async def run(self) -> Checked:
        """Look at everything."""
        if self.watcher.counts:
            async for page in self.blobs.files():
                if not isinstance(page, Finding):
                    self._total += sum(entry.size or 0 for entry in page)
        await self._read_blobs()
        for findings in self.others:
            async for finding in findings():
                await self._take(finding)
            self._settled(await self.repair.settle())
        tags = tuple(tag for tag in self.tags if not tag.link or tag.link not in self._mended)
        return Checked(self._files, self._size, self._repositories, **self._counts, tags=tags)

    def entering(self, name: str) -> None:
        """Count a repository."""
        self._repositories += 1
        self.watcher.entering(name)

    async def _read_blobs(self) -> None:
        async for page in self.blobs.files():
            if isinstance(page, Finding):
                await self._take(page)
                continue

            for finding in await self.blobs.examine_all(page, self._read):
                if finding.kind in _CORRUPT and finding.digest is not None:
                    self.corrupt.add(finding.digest)
                await self._take(finding)
        self._settled(await self.repair.settle())

    def _read(self, size: int) -> None:
        self._files += 1
        self._size += size
        self.watcher.read(self._size, self._total)

    async def _take(self, finding: Finding) -> None:
        self._settled(await self.repair.take(finding))

    def _settled(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            if finding.repaired:
                self._counts["repaired"] += 1
                self._mended.add(finding.path)
            else:
                self._counts[_COUNTED[finding.severity]] += 1
            self.watcher.found(finding)
