"""What can be wrong with a store, as the check of it reports it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from twisted.logger import Logger

from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted_registry.oci.digest import Digest

log = Logger()


class Severity(Enum):
    """Whom it concerns.

    DAMAGE: clients notice. SPARSE: clients of the platforms that are not there notice, and the
    configuration lets it be so. HARMLESS: nobody does; it takes room, or is not what it was meant
    to be.
    """

    DAMAGE = "damage"
    SPARSE = "sparse"
    HARMLESS = "harmless"


class FindingKind(Enum):
    """What is wrong, in the words of the report."""

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
        """Whom it concerns, if nothing else is said."""
        if self is FindingKind.INDEX_SPARSE:
            return Severity.SPARSE
        return Severity.HARMLESS if self in _HARMLESS_KINDS else Severity.DAMAGE


_HARMLESS_KINDS = {
    *(
        FindingKind.BLOB_MISPLACED,
        FindingKind.FILE_STRAY,
        FindingKind.TYPE_MALFORMED,
        FindingKind.TAG_UNFINISHED,
    ),
    *(
        FindingKind.REFERRER_UNLISTED,
        FindingKind.REPOSITORY_UNMARKED,
        FindingKind.UPLOAD_INCOMPLETE,
    ),
    *(FindingKind.LEFTOVERS, FindingKind.RECORD_TORN, FindingKind.TRASH_CORRUPT),
}


@frozen
class Finding:
    """One thing that is wrong.

    :ivar path: where.
    :ivar detail: a part of a sentence for whoever reads the report.
    :ivar digest: of the content that it is about, or None.
    :ivar repository: in which it was found; empty if in none.
    :ivar severity: whom it concerns.
    :ivar repair: puts it right, and answers whether it has; None if that can not be done here.
    :ivar silence: content that nobody may push while that goes on: what is looked at last and
        then taken away must not be stored in between. None if it does not matter.
    :ivar repaired: whether that was done.
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

    async def repair_and_report(self) -> Finding:
        """Repair it, and return what then holds."""
        if self.repair is None:
            return self
        try:
            return evolve(self, repaired=await self.repair())
        except StorageError as error:
            log.error("not repaired: {path}: {error}", path=self.path, error=str(error))
            return self

    def without_repair(self) -> Finding:
        """The same, not to be repaired."""
        return evolve(self, repair=None)

    @severity.default
    def _default_severity(self) -> Severity:
        return self.kind.severity

    def __str__(self) -> str:
        about = "" if self.digest is None or self.digest.hex in self.path else f" ({self.digest})"
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.kind.value}: {self.path or '/'}{about}{detail}"
