"""Which process it is, told so exactly that its end can be known for sure.

A record that a process left behind counts for a while, since nobody can tell one that is slow from
one that is gone. Of a process in the same namespace of the same kernel that can be told. Where it
can not, the answer is that it may live.

What a collector means to remove, as it publishes it in the store.

A text file: a line with the list's id, its phase, its term and its collector; then a line for each
blob, and one for each manifest of a repository. It is replaced in one step, and gone when the sweep
has passed. Who reads it keeps the lines as they are: there may be thousands, and clients wait.

A list of what is to be removed, from its proposal to its end: the collector's side of the gate.

Whoever takes anything out of a store that others serve goes this way, see
:mod:`twisted_registry.gc.gate`: propose a list; wait until every process has acknowledged
it; condemn what is still to go; look again; remove; withdraw the list.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_registry.oci.digest import ALGORITHMS
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime

    # @@EMPTY
    from twisted_registry.gc.sweep import Sweeper
    from twisted_registry.oci.digest import Digest
    from twisted_registry.storage.interfaces import IStorageDriver

_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
#: Which of the fields after the name of the program (proc_pid_stat(5)) says when it began.
_START_TIME_FIELD = 19


def process_identity() -> str:
    """Names this process, and no other that ever was: a word, empty where that can not be done."""
    place, began = _kernel_and_namespace(), _start_ticks(os.getpid())
    return f"{place}/{os.getpid()}/{began}" if place and began else ""


def has_exited(name: str) -> bool:
    """Whether the process that :func:`process_identity` named so has certainly ended, all of it."""
    place, pid, began = (["", "", *name.rsplit("/", 2)])[-3:]
    if not (place and pid.isdecimal()) or place != _kernel_and_namespace():
        return False
    try:
        # One that ended and was not waited for is still found: a thread of it may be at work.
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return _start_ticks(int(pid)) not in {"", began}


def _kernel_and_namespace() -> str:
    """The kernel that was booted, and the namespace in which ids of processes are unique."""
    try:
        boot, namespace = _BOOT_ID_PATH.read_text().strip(), Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{boot}/{namespace}"


def _start_ticks(pid: int) -> str:
    """When a process began, in ticks since the kernel was booted; empty if nobody tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[_START_TIME_FIELD] if len(fields) > _START_TIME_FIELD else ""


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
    :ivar owner: the collector's process, see :mod:`~twisted_registry.gc.delete_list`.
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


async def read_delete_list(
    driver: IStorageDriver, known: DeleteListView | None = None
) -> DeleteListView | None:
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


async def _read(
    driver: IStorageDriver, known: DeleteListView | None = None
) -> DeleteListView | None:
    try:
        content = await driver.get(layout.DELETE_LIST, _MAX_LIST_BYTES)
    except PathNotFound:
        return None
    return (
        known
        if known is not None and known.matches_content(content)
        else DeleteListView.from_bytes(content)
    )


#: Seconds after which processes take a list for void, or more. Nothing goes in the second half.
LIST_TTL_S = 60.0
#: Seconds for which acknowledgements are waited for, and between two looks at them.
_ACKNOWLEDGE_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.25
#: Seconds within which an object store answers, or has forgotten what it was asked.
SETTLE_S = 15.0


class NotAcknowledged(Exception):
    """A serving process does not answer, or the list is gone: nothing may be removed."""


@define(eq=False)
class DeleteListProtocol:
    """Publishes lists, one at a time.

    :ivar clock: is never compared with another machine's.
    :ivar settling: seconds for which what a collector asked of the store may still take effect
        after its end; no less than what a request may lie around.
    """

    sweeper: Sweeper
    clock: IReactorTime
    settle_s: float = SETTLE_S
    _ttl_s: float = LIST_TTL_S
    _proposed_at_s: float = 0.0

    async def propose(self, proposed: DeleteList) -> None:
        """Publish a list when that of another collector is gone, and wait for all processes.

        :raises NotAcknowledged: if one does not acknowledge it in time.
        """
        while True:
            self._proposed_at_s, self._ttl_s = self.clock.seconds(), proposed.ttl_s
            if await self.sweeper.propose(proposed):
                break
            await self._wait_for_other_list(await self.sweeper.published_list())
        await self._wait_for_acknowledgements(proposed.id)

    async def condemn(self, condemned: DeleteList) -> None:
        """Replace the proposed list by what is to go of it.

        :raises NotAcknowledged: if another collector has taken it away.
        """
        if not await self.sweeper.condemn(condemned):
            raise NotAcknowledged("another collector has taken the list away")

    def in_time(self) -> bool:
        """Whether something may still be removed: long before anybody takes the list for void."""
        return self.clock.seconds() - self._proposed_at_s < self._ttl_s / 2

    async def _wait_for_other_list(self, other: DeleteListView | None) -> None:
        """Wait until another collector's list is gone, or void because its collector died."""
        began = self.clock.seconds()
        if other is not None:
            log.info("another collector is at work, or was; waiting")
        while other is not None:
            ttl_s = min(self.settle_s, other.ttl_s) if has_exited(other.owner) else other.ttl_s
            if self.clock.seconds() - began >= ttl_s:
                await self.sweeper.withdraw(other.id)
            await self._pause()
            found = await self.sweeper.published_list()
            if found is None or found.id != other.id:
                return

    async def _wait_for_acknowledgements(self, list_id: str) -> None:
        until = self.clock.seconds() + _ACKNOWLEDGE_TIMEOUT_S
        while True:
            missing = [
                process.id
                for process in await self.sweeper.live_processes()
                if process.acknowledged != list_id
            ]
            if not missing:
                return
            if self.clock.seconds() >= until:
                raise NotAcknowledged(
                    f"{len(missing)} serving processes did not acknowledge the list in time"
                )
            await self._pause()

    async def _pause(self) -> None:
        await deferLater(self.clock, _POLL_INTERVAL_S, lambda: None)
