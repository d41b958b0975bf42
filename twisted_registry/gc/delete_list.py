"""The published delete list: what a collector is about to remove.

:mod:`twisted_registry.gc.gate` describes the protocol. This module has the file itself
(:class:`DeleteList` to write it, :class:`DeleteListView` to read it), the leases and the records of
serving processes beside it, and the collector's side of the protocol (:class:`DeleteListProtocol`).
fsck and scrub use the same protocol before they move damaged content to the quarantine.

The list is one text file. Its first line has the ID of the list, its phase, its time to live and
the identity of the collector's process. One line follows for each blob, then one for each manifest
with its repository, then ``end``. The file is replaced in one step and deleted after the sweep.
Readers keep the lines as text, because there may be thousands and clients are waiting.
"""

from __future__ import annotations

import re
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.repository import layout
from twisted_registry.repository.clock import ClockJumps, time_before
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import list_folder
from twisted_registry.repository.liveness import has_exited, process_identity
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

log = Logger()

#: Seconds after which serving processes ignore a list, at least. Nothing is removed in the second
#: half of this time.
LIST_TTL_S = 60.0
#: Seconds for which the record of a serving process counts as a sign of life.
RECORD_TTL_S = 30.0
#: Seconds within which an object store completes a request, or drops it.
SETTLE_S = 15.0
#: Seconds after which the record of a dead process is deleted.
_DEAD_RECORD_TTL_S = 24 * 3600.0
#: Seconds to wait for all acknowledgements, and between two checks for them.
_ACKNOWLEDGE_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.25

_MAX_LIST_BYTES = 64 * 1024 * 1024
_MAX_RECORD_BYTES = 1024

_DIGEST = "|".join(f"{algorithm}:[0-9a-f]{{{length}}}" for algorithm, length in ALGORITHMS.items())
#: All lines but the first. A file that a crash cut short has no such end.
_ENTRIES = re.compile(rf"(?:(?:{_DIGEST})(?: [^ \n]+)?\n)*end")


class Phase(Enum):
    """The phase of a list.

    PROPOSED: a process that reports a listed digest as present writes a lease for it. CONDEMNED:
    listed digests are reported as absent to pushing clients, and may be removed.
    """

    PROPOSED = "proposed"
    CONDEMNED = "condemned"


class DeleteListInvalid(ValueError):
    """The file is not a complete delete list."""


class NotAcknowledged(Exception):
    """Nothing may be removed: a serving process did not acknowledge, or the list was withdrawn."""


def _repr_count(items: frozenset[object]) -> str:
    return str(len(items))


@frozen
class DeleteList:
    """A list as its collector writes it.

    :ivar ttl_s: seconds after which a process that has seen the list ignores it. The collector
        stops removing after half of this time.
    :ivar blobs: blobs and manifests whose bytes nothing references.
    :ivar manifests: revisions to be taken out of a repository: its name, and the digest.
    :ivar owner: the collector's process, see :func:`~.liveness.process_identity`.
    """

    id: str
    phase: Phase
    ttl_s: float
    blobs: frozenset[Digest] = field(repr=_repr_count)
    manifests: frozenset[tuple[str, Digest]] = field(factory=frozenset, repr=_repr_count)
    owner: str = field(factory=process_identity, eq=False)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
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
    """A list as other processes read it.

    The attributes are those of :class:`DeleteList`.

    :ivar size: bytes of the file.
    """

    id: str
    phase: Phase
    ttl_s: float
    owner: str
    size: int
    _lines: frozenset[str] = field(repr=_repr_count)

    def contains(self, repository: str | None, digest: Digest) -> bool:
        """Return whether a digest is listed.

        :param repository: a repository, whose manifests count as well; None for blobs only.
        """
        line = str(digest)
        return line in self._lines or (
            repository is not None and f"{line} {repository}" in self._lines
        )

    def digests(self) -> Iterator[str]:
        """Return all listed digests: blobs, and manifests of any repository."""
        return (line.partition(" ")[0] for line in self._lines)

    def matches_content(self, content: bytes) -> bool:
        """Return whether a file still has this list: each phase of a list is written once."""
        return len(content) == self.size and content.startswith(
            f"{self.id} {self.phase.value} ".encode()
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> DeleteListView:
        """Parse the file.

        :raises DeleteListInvalid: if it is incomplete or malformed.
        """
        first, _, lines = content.decode("ascii", "replace").partition("\n")
        if not _ENTRIES.fullmatch(lines):
            raise DeleteListInvalid("no end line, or a line that is not a digest")
        try:
            list_id, phase, ttl_s, owner = first.split(" ")
            entries = frozenset(lines.split("\n")[:-1])
            return cls(list_id, Phase(phase), float(ttl_s), owner, len(content), entries)
        except ValueError as error:
            raise DeleteListInvalid(str(error)) from error


async def read_delete_list(
    driver: IStorageDriver, known: DeleteListView | None = None
) -> DeleteListView | None:
    """Return the list that is published now, or None. A torn list counts as none.

    :param known: an earlier result; returned if the file has not changed since.
    :raises StorageError: if the store fails.
    """
    try:
        return await _read(driver, known)
    except DeleteListInvalid as error:
        # Its collector crashed with the power: a live one has written the whole file.
        log.warn("delete list is torn and ignored: {error}", error=str(error))
        return None


async def is_list_torn(driver: IStorageDriver) -> bool:
    """Return whether a list is published that a crash cut short.

    :raises StorageError: if the store fails.
    """
    try:
        await _read(driver)
    except DeleteListInvalid:
        return True
    return False


async def delete_torn_list(driver: IStorageDriver) -> bool:
    """Delete the published list if it is torn, and return whether it was.

    :raises StorageError: if the store fails.
    """
    torn = await is_list_torn(driver)
    if torn:
        with suppress(PathNotFound):
            await driver.delete(layout.DELETE_LIST)
    return torn


async def read_leases(driver: IStorageDriver, list_id: str) -> set[Digest]:
    """Return the digests that were reported as present to clients while a list was proposed.

    :raises StorageError: if the store fails.
    """
    found: set[Digest] = set()
    for algorithm in ALGORITHMS:
        for entry in await list_folder(driver, f"{layout.leases_folder(list_id)}/{algorithm}"):
            with suppress(DigestInvalid):
                found.add(Digest.parse(f"{algorithm}:{entry.path}"))
    return found


@define(eq=False, repr=False)
class DeleteListProtocol:
    """The collector's side of the protocol, for one list at a time.

    All methods but :meth:`in_time` raise :class:`~twisted_registry.oci.errors.RegistryError` if the
    store fails.

    :ivar clock: measures the age of the list; it is never compared with another machine's, and must
        not be set meanwhile.
    :ivar settle_s: seconds for which a request of a dead collector may still take effect. A system
        call ends with its process, a request to an object store does not.
    :ivar jumps: corrects ages of records after the clock was set.
    """

    driver: IStorageDriver
    clock: IReactorTime
    settle_s: float = SETTLE_S
    jumps: ClockJumps = field(factory=ClockJumps.unwatched)
    _ttl_s: float = field(init=False, default=LIST_TTL_S)
    _proposed_at_s: float = field(init=False, default=0.0)
    #: by records: their times, and when each was first seen to have that
    _seen: dict[str, tuple[float | None, float]] = field(init=False, factory=dict)

    @translate_storage_errors
    async def propose(self, proposed: DeleteList) -> None:
        """Publish a list, and wait until every serving process has acknowledged it.

        While another collector's list is published, wait until it is withdrawn or expires.

        :raises NotAcknowledged: if a process does not acknowledge it in time.
        """
        while True:
            self._proposed_at_s, self._ttl_s = self.clock.seconds(), proposed.ttl_s
            if await self._create(proposed):
                break
            await self._wait_for_other_list()
        await self._wait_for_acknowledgements(proposed.id)

    @translate_storage_errors
    async def leased_digests(self, list_id: str) -> set[Digest]:
        """Return what has to be taken off the list, see :func:`read_leases`."""
        return await read_leases(self.driver, list_id)

    @translate_storage_errors
    async def condemn(self, condemned: DeleteList) -> None:
        """Replace the proposed list by the digests that are still to be removed.

        :raises NotAcknowledged: if another collector has withdrawn the list.
        """
        published = await read_delete_list(self.driver)
        if published is None or published.id != condemned.id:
            raise NotAcknowledged("another collector has withdrawn the list")
        await self.driver.put(layout.DELETE_LIST, condemned.to_bytes())

    def in_time(self) -> bool:
        """Return whether the collector may still remove: not half of the list's time has passed."""
        return self.clock.seconds() - self._proposed_at_s < self._ttl_s / 2

    @translate_storage_errors
    async def withdraw(self, list_id: str) -> None:
        """Delete a list and its leases. Another collector's list stays."""
        published = await read_delete_list(self.driver)
        if published is None or published.id == list_id:
            with suppress(PathNotFound):
                await self.driver.delete(layout.DELETE_LIST)
        with suppress(PathNotFound):
            await self.driver.delete(layout.leases_folder(list_id))

    async def _create(self, proposed: DeleteList) -> bool:
        """Publish a list unless one is published, and return whether that is done."""
        try:
            await self.driver.create(layout.DELETE_LIST, proposed.to_bytes())
        except PathExists:
            # Nobody owns a torn list, so nobody else would ever delete it.
            await delete_torn_list(self.driver)
            return False
        except MethodUnsupported:
            if await read_delete_list(self.driver) is not None:
                return False
            await self.driver.put(layout.DELETE_LIST, proposed.to_bytes())
        return True

    async def _wait_for_other_list(self) -> None:
        """Wait until the published list is withdrawn, or withdraw it when it has expired."""
        began, other = self.clock.seconds(), await read_delete_list(self.driver)
        if other is None:
            return
        log.info("waiting for the delete list of another collector list={id}", id=other.id)
        while True:
            ttl_s = min(self.settle_s, other.ttl_s) if has_exited(other.owner) else other.ttl_s
            if self.clock.seconds() - began >= ttl_s:
                await self.withdraw(other.id)
            await self._pause()
            published = await read_delete_list(self.driver)
            if published is None or published.id != other.id:
                return

    async def _wait_for_acknowledgements(self, list_id: str) -> None:
        deadline = self.clock.seconds() + _ACKNOWLEDGE_TIMEOUT_S
        while missing := await self._count_unacknowledged(list_id):
            if self.clock.seconds() >= deadline:
                raise NotAcknowledged(
                    f"{missing} serving processes did not acknowledge the list in time"
                )
            await self._pause()

    async def _count_unacknowledged(self, list_id: str) -> int:
        """Count the live processes that do not obey a list; delete the records of dead ones."""
        renewed = await time_before(self.driver, RECORD_TTL_S, self.jumps)
        kept, count = renewed - _DEAD_RECORD_TTL_S - self.jumps.forward_s(_DEAD_RECORD_TTL_S), 0
        for entry in await list_folder(self.driver, layout.PROCESSES):
            path, modified = layout.process_record(entry.path), entry.modified_s
            with suppress(PathNotFound):
                content = await self.driver.get(path, _MAX_RECORD_BYTES)
                acknowledged, _, owner = content.decode("utf-8", "replace").partition(" ")
                if has_exited(owner) or (modified is not None and modified < kept):
                    await self.driver.delete(path)
                elif acknowledged != list_id and self._is_renewed(entry, renewed):
                    count += 1
        return count

    def _is_renewed(self, record: Entry, since: float) -> bool:
        """Return whether the process of a record still renews it.

        After the clock was set back, the record of a dead process may have a time in the future. So
        a record that has not changed for ``RECORD_TTL_S`` counts as not renewed.
        """
        modified, now = record.modified_s, self.clock.seconds()
        known, seen_at_s = self._seen.get(record.path, (None, now))
        if record.path not in self._seen or known != modified:
            self._seen[record.path] = modified, now
            seen_at_s = now
        if modified is None:
            return True
        return modified > since and now - seen_at_s < RECORD_TTL_S

    async def _pause(self) -> None:
        await deferLater(self.clock, _POLL_INTERVAL_S, lambda: None)


async def _read(
    driver: IStorageDriver, known: DeleteListView | None = None
) -> DeleteListView | None:
    try:
        content = await driver.get(layout.DELETE_LIST, _MAX_LIST_BYTES)
    except PathNotFound:
        return None
    if known is not None and known.matches_content(content):
        return known
    return DeleteListView.from_bytes(content)
