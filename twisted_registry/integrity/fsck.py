"""Check a whole store (blobs, links, manifests and leftovers), and repair it while it is served.

Some repairs remove content after a last look at it, during which nobody may store the same
content. Its digest is published on a list like the collector's
(:mod:`twisted_registry.gc.delete_list`), which every serving process obeys: a push of a damaged
blob waits until the damaged one is moved away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, evolve, field
from twisted.logger import Logger

from twisted_registry.gc.delete_list import (
    LIST_TTL_S,
    DeleteList,
    DeleteListProtocol,
    NotAcknowledged,
    Phase,
)
from twisted_registry.integrity.findings import Finding, FindingKind, Severity
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.errors import translate_storage_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.integrity.affected import AffectedTag
    from twisted_registry.integrity.blobs import BlobCheck
    from twisted_registry.oci.digest import Digest
    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: Findings about the bytes of a blob.
_CORRUPT_KINDS = {FindingKind.BLOB_CORRUPT, FindingKind.BLOB_EMPTY, FindingKind.FILE_UNREADABLE}
#: Findings that are repaired under one list.
_MAX_WAITING = 500


class FsckObserver:
    """Receives the progress of a check; this one ignores it.

    :cvar counts: whether the total size is wanted, which takes a listing of all blobs first.
    """

    counts = False

    def read(self, done: int, total: int) -> None:
        """Called when blobs were read.

        :param done: bytes read so far.
        :param total: bytes of all blobs; 0 if they were not counted.
        """

    def repository_started(self, name: str) -> None:
        """Called when the check of a repository begins."""

    def found(self, finding: Finding) -> None:
        """Called for each finding, after its repair if there is one."""


@define(eq=False)
class FsckResult:
    """The result of a check.

    :ivar files: number of blobs and manifests read.
    :ivar size: their size in bytes.
    :ivar repositories: number of repositories checked.
    :ivar damaged: findings of severity DAMAGE that remain.
    :ivar sparse: findings of severity SPARSE that remain.
    :ivar harmless: findings of severity HARMLESS that remain.
    :ivar repaired: findings that were repaired.
    :ivar failed: findings whose repair failed, because of the store.
    :ivar tags: tags that cannot be pulled completely.
    """

    files: int = 0
    size: int = 0
    repositories: int = 0
    damaged: int = 0
    sparse: int = 0
    harmless: int = 0
    repaired: int = 0
    failed: int = 0
    tags: tuple[AffectedTag, ...] = ()


@define(eq=False)
class Fsck:
    """One check of a store.

    :ivar corrupt: filled with the damaged blobs, before the other checks run.
    :ivar checks: run after the blobs; each returns an asynchronous iterator of findings.
    :ivar tags: filled with the tags that cannot be pulled completely.
    """

    blobs: BlobCheck
    corrupt: set[Digest]
    repair: Repairer
    observer: FsckObserver
    checks: list[Callable[[], AsyncIterator[Finding]]] = field(factory=list)
    tags: list[AffectedTag] = field(factory=list)
    _result: FsckResult = field(init=False, factory=FsckResult)
    _total: int = field(init=False, default=0)
    _repaired_paths: set[str] = field(init=False, factory=set)

    @translate_storage_errors
    async def run(self) -> FsckResult:
        """Check everything once.

        :raises RegistryError: if the store cannot be listed.
        """
        if self.observer.counts:
            async for page in self.blobs.files():
                if not isinstance(page, Finding):
                    self._total += sum(entry.size or 0 for entry in page)
        await self._read_blobs()
        for findings in self.checks:
            async for finding in findings():
                await self._repair(finding)
            self._count_findings(await self.repair.repair_waiting())
        self._result.tags = tuple(
            tag for tag in self.tags if not tag.link or tag.link not in self._repaired_paths
        )
        return self._result

    def repository_started(self, name: str) -> None:
        """Count a repository whose check begins."""
        self._result.repositories += 1
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
        self._result.files += 1
        self._result.size += size
        self.observer.read(self._result.size, self._total)

    async def _repair(self, finding: Finding) -> None:
        self._count_findings(await self.repair.submit(finding))

    def _count_findings(self, findings: Iterable[Finding]) -> None:
        result = self._result
        for finding in findings:
            result.failed += finding.failed
            if finding.repaired:
                result.repaired += 1
                self._repaired_paths.add(finding.path)
            elif finding.severity is Severity.DAMAGE:
                result.damaged += 1
            elif finding.severity is Severity.SPARSE:
                result.sparse += 1
            else:
                result.harmless += 1
            self.observer.found(finding)


@define(eq=False)
class Repairer:
    """Repairs the findings of one run.

    :ivar enabled: whether anything is repaired.
    """

    driver: IStorageDriver
    clock: IReactorTime
    enabled: bool = True
    _waiting: list[Finding] = field(init=False, factory=list)

    async def submit(self, finding: Finding) -> Sequence[Finding]:
        """Repair a finding, now or together with others.

        :returns: the findings that are settled now, repaired or not.
        """
        if not self.enabled or finding.repair is None:
            return [finding]
        if finding.blocked_digest is None:
            return [await finding.repair_and_report()]
        self._waiting.append(finding)
        return await self.repair_waiting() if len(self._waiting) >= _MAX_WAITING else ()

    async def repair_waiting(self) -> Sequence[Finding]:
        """Repair the findings that wait, and return them."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return waiting
        blobs = frozenset(
            finding.blocked_digest for finding in waiting if finding.blocked_digest is not None
        )
        proposed = DeleteList(str(uuid4()), Phase.PROPOSED, LIST_TTL_S, blobs)
        protocol = DeleteListProtocol(self.driver, self.clock)
        try:
            await protocol.propose(proposed)
            await protocol.condemn(evolve(proposed, phase=Phase.CONDEMNED))
            return [
                await finding.repair_and_report() if protocol.in_time() else finding
                for finding in waiting
            ]
        except NotAcknowledged as error:
            log.error(
                "{count} findings are not repaired in this run: {reason}",
                count=len(waiting),
                reason=str(error),
            )
            return waiting
        except RegistryError as error:
            log.error(
                "{count} findings cannot be repaired: {reason}",
                count=len(waiting),
                reason=str(error),
            )
            return [evolve(finding, failed=True) for finding in waiting]
        finally:
            await _withdraw(protocol, proposed.id)


async def _withdraw(protocol: DeleteListProtocol, list_id: str) -> None:
    """Withdraw a list. One that cannot be withdrawn expires."""
    try:
        await protocol.withdraw(list_id)
    except RegistryError as error:
        log.error("cannot withdraw a delete list, it expires: {reason}", reason=str(error))
