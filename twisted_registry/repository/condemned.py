"""What a collector means to remove, as it publishes it in the store.

A text file: a line with the list's id, its phase, its term and its collector; then a line for each
blob, and one for each manifest of a repository. It is replaced in one step, and gone when the sweep
has passed. Who reads it keeps the lines as they are: there may be thousands, and clients wait.
"""

from __future__ import annotations

import re
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from attrs import field, frozen
from twisted.logger import Logger

from twisted_registry.digest import ALGORITHMS
from twisted_registry.repository import layout
from twisted_registry.repository.liveness import process_identity
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twisted_registry.digest import Digest
    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: Bytes of a list.
_MAX_LIST_BYTES = 64 * 1024 * 1024
_DIGEST = "|".join(f"{algorithm}:[0-9a-f]{{{length}}}" for algorithm, length in ALGORITHMS.items())
#: All lines but the first. One that a crash cut short has no such end.
_ENTRIES = re.compile(rf"(?:(?:{_DIGEST})(?: [^ \n]+)?\n)*end")


class Phase(Enum):
    """How far a list is.

    PROPOSED: whoever calls something on it present takes a lease. CONDEMNED: what is on it is
    gone for everybody who may push, and may be removed.
    """

    PROPOSED = "proposed"
    CONDEMNED = "condemned"


class DeleteListInvalid(ValueError):
    """The file is no such list."""


def _repr_count(items: frozenset[object]) -> str:
    return str(len(items))


@frozen
class DeleteList:
    """One list.

    :ivar term: seconds after which a process that has seen the list no longer obeys it; its
        collector stops removing long before.
    :ivar blobs: bytes that nothing references.
    :ivar manifests: revisions to be taken out of a repository.
    :ivar owner: the collector's process, see :mod:`~twisted_registry.repository.liveness`.
    """

    id: str
    phase: Phase
    ttl_s: float
    blobs: frozenset[Digest] = field(repr=_repr_count)
    manifests: frozenset[tuple[str, Digest]] = field(factory=frozenset, repr=_repr_count)
    owner: str = field(factory=process_identity, eq=False)

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return "\n".join(self._lines()).encode("ascii")

    def _lines(self) -> Iterable[str]:
        yield f"{self.id} {self.phase.value} {self.ttl_s:g} {self.owner}"
        for digest in self.blobs:
            yield str(digest)
        for repository, digest in self.manifests:
            yield f"{digest} {repository}"
        yield "end"


@frozen(eq=False)
class DeleteListView:
    """A list as others read it.

    :ivar id: and the others: as in :class:`DeleteList`.
    :ivar size: bytes of the file.
    """

    id: str
    phase: Phase
    ttl_s: float
    owner: str
    size: int
    _lines: frozenset[str] = field(repr=_repr_count)

    def contains(self, repository: str | None, digest: Digest) -> bool:
        """Whether the list holds a digest, for one repository or (None) for the whole store."""
        line = str(digest)
        return line in self._lines or (
            repository is not None and f"{line} {repository}" in self._lines
        )

    def digests(self) -> Iterator[str]:
        """All that is on the list, for the whole store or for a repository."""
        return (line.partition(" ")[0] for line in self._lines)

    def matches_content(self, content: bytes) -> bool:
        """Whether a file still says the same: each phase of a list is written once."""
        return len(content) == self.size and content.startswith(
            f"{self.id} {self.phase.value} ".encode()
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> DeleteListView:
        """Read the file.

        :raises DeleteListInvalid: if it is torn.
        """
        first, _, lines = content.decode("ascii", "replace").partition("\n")
        if not _ENTRIES.fullmatch(lines):
            raise DeleteListInvalid("it has no end, or a line that is no digest")
        try:
            list_id, phase, ttl_s, owner = first.split(" ")
            found = frozenset(lines.split("\n")[:-1])
            return cls(list_id, Phase(phase), float(ttl_s), owner, len(content), found)
        except ValueError as error:
            raise DeleteListInvalid(str(error)) from error


async def read_delete_list(driver: IStorageDriver, known: DeleteListView | None = None) -> DeleteListView | None:
    """The list that is published now, or None.

    :param known: what was read before, to be returned if it is still so.
    """
    try:
        return await _read(driver, known)
    except DeleteListInvalid as error:
        # Its collector is gone with the power: a living one has written it whole.
        log.warn("the collector's list is torn and counts for nothing: {error}", error=str(error))
        return None


async def delete_torn_list(driver: IStorageDriver) -> bool:
    """Remove the list if it is torn, and return whether it was."""
    torn = await is_list_torn(driver)
    if torn:
        with suppress(PathNotFound):
            await driver.delete(layout.DELETE_LIST)
    return torn


async def is_list_torn(driver: IStorageDriver) -> bool:
    """Whether there is a list that a crash cut short."""
    try:
        await _read(driver)
    except DeleteListInvalid:
        return True
    return False


async def _read(driver: IStorageDriver, known: DeleteListView | None = None) -> DeleteListView | None:
    try:
        content = await driver.get(layout.DELETE_LIST, _MAX_LIST_BYTES)
    except PathNotFound:
        return None
    return known if known is not None and known.matches_content(content) else DeleteListView.from_bytes(content)
