"""Findings of checks: what is wrong with a store, how bad it is, and how to repair it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError
from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted_registry.oci.digest import Digest

log = Logger()


class Severity(Enum):
    """Whom a finding concerns.

    DAMAGE: clients notice. SPARSE: clients of platforms that an index lists without their images
    notice, and the configuration allows it. HARMLESS: no client notices; it takes room, or does not
    do what it is for.
    """

    DAMAGE = "damage"
    SPARSE = "sparse"
    HARMLESS = "harmless"


class FindingKind(Enum):
    """The kind of a finding; the values are printed in reports."""

    BLOB_CORRUPT = "corrupt blob"
    BLOB_EMPTY = "empty blob"
    BLOB_MISPLACED = "misplaced blob"
    FILE_UNREADABLE = "unreadable file"
    FOLDER_UNREADABLE = "unreadable folder"
    FILE_STRAY = "stray file"
    LINK_EMPTY = "empty link"
    LINK_MALFORMED = "malformed link"
    LINK_DANGLING = "dangling link"
    MANIFEST_INVALID = "invalid manifest"
    PART_MISSING = "missing part"
    PART_UNLINKED = "unlinked part"
    SIZE_WRONG = "wrong size"
    INDEX_SPARSE = "sparse index"
    TYPE_MALFORMED = "malformed media type"
    TAG_UNFINISHED = "unfinished tag"
    REFERRER_UNLISTED = "unlisted referrer"
    REPOSITORY_UNMARKED = "unmarked repository"
    UPLOAD_INCOMPLETE = "incomplete upload"
    LEFTOVERS = "leftovers"
    RECORD_TORN = "torn record"
    TRASH_CORRUPT = "corrupt blob in the trash"

    @property
    def severity(self) -> Severity:
        """The severity of findings of this kind, unless a finding overrides it."""
        if self is FindingKind.INDEX_SPARSE:
            return Severity.SPARSE
        return Severity.HARMLESS if self in _HARMLESS_KINDS else Severity.DAMAGE


_HARMLESS_KINDS = {
    FindingKind.BLOB_MISPLACED,
    FindingKind.FILE_STRAY,
    FindingKind.TYPE_MALFORMED,
    FindingKind.TAG_UNFINISHED,
    FindingKind.REFERRER_UNLISTED,
    FindingKind.REPOSITORY_UNMARKED,
    FindingKind.UPLOAD_INCOMPLETE,
    FindingKind.LEFTOVERS,
    FindingKind.RECORD_TORN,
    FindingKind.TRASH_CORRUPT,
}


@frozen
class Finding:
    """One thing that is wrong with a store.

    :ivar path: of the file or folder.
    :ivar detail: a part of a sentence for the report.
    :ivar digest: of the content that is concerned, or None.
    :ivar repository: in which it was found; empty if in none.
    :ivar severity: whom it concerns.
    :ivar repair: a coroutine function that repairs it and returns whether it did; None if it cannot
        be repaired.
    :ivar blocked_digest: content that must not be pushed while it is repaired, since it is checked
        once more and then removed; None if that does not matter.
    :ivar repaired: whether it was repaired.
    :ivar failed: whether its repair failed, because of the store.
    """

    kind: FindingKind
    path: str
    detail: str = ""
    digest: Digest | None = None
    repository: str = ""
    severity: Severity = field(kw_only=True)
    repair: Callable[[], Coroutine[object, object, bool]] | None = field(
        default=None, kw_only=True, eq=False, repr=False
    )
    blocked_digest: Digest | None = field(default=None, kw_only=True, eq=False, repr=False)
    repaired: bool = field(default=False, kw_only=True)
    failed: bool = field(default=False, kw_only=True)

    async def repair_and_report(self) -> Finding:
        """Run the repair, and return the finding as it is afterwards."""
        if self.repair is None:
            return self
        try:
            return evolve(self, repaired=await self.repair())
        except (StorageError, RegistryError) as error:
            log.error("cannot repair {path}: {error}", path=self.path, error=str(error))
            return evolve(self, failed=True)

    def without_repair(self) -> Finding:
        """Return the same finding without its repair."""
        return evolve(self, repair=None)

    @severity.default
    def _default_severity(self) -> Severity:
        return self.kind.severity

    def __str__(self) -> str:
        about = "" if self.digest is None or self.digest.hex in self.path else f" ({self.digest})"
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.kind.value}: {self.path or '/'}{about}{detail}"
