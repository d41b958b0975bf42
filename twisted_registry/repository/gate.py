"""The gate between clients and the collector, in every process that serves.

Removing while clients push is safe by an order of steps, not by locks or clocks: the collector
condemns a list of what it means to remove, and only then looks once more whether something refers
to it; a manifest PUT writes its link, then reads the list afresh, then looks once more at what it
refers to. One of the two sees the other, whatever the rest of this module does.

The rest keeps pushes from failing, and bytes that were pushed again from being removed. A list is
proposed first. From the time that a process sees it until it acknowledges it, whatever it calls
present although it is listed gets a lease, which takes it off the list; so does what it called
present shortly before, since the client may be about to build on it. It acknowledges once all that
was begun before has ended; from then on what is listed is gone for clients that ask before they
push (who pulls gets what is there), and bytes of the same digest wait for the sweep to pass. The
collector waits for every process that has a record.

A list whose term has passed since it was first seen is void, so that a collector that dies blocks
nobody for long.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.digest import Digest
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.condemned import Phase, read_condemned
from twisted_registry.repository.interfaces import IPresenceGate
from twisted_registry.repository.liveness import this_process
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.condemned import Listed
    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: Seconds for which a record counts as the sign of a living process.
RECORD_TERM = 30.0
#: Seconds without a renewed record after which a process stores no more: it must notice before
#: others take it for dead.
_LATE = RECORD_TERM * 0.75
#: Seconds for which a push waits for a sweep to pass.
_PATIENCE = 20.0
#: Digests of which it is remembered that they were called present lately.
_REMEMBERED = 200_000


class _Lately:
    """What was called present in the last one to two spans of time.

    :ivar span: seconds.
    """

    def __init__(self, clock: IReactorTime, span: float) -> None:
        self.clock = clock
        self.span = span
        self._now: set[str] = set()
        self._before: set[str] = set()
        self._turn = 0.0

    def note(self, digest: Digest) -> None:
        """Remember a digest."""
        text = str(digest)
        if text not in self._now or self.clock.seconds() >= self._turn + self.span:
            self._age()
            self._now.add(text)

    def among(self, digests: Iterable[str]) -> set[Digest]:
        """Those of ``digests`` that are remembered."""
        self._age()
        found = {text for text in digests if text in self._now or text in self._before}
        return {Digest.parse(text) for text in found}

    def _age(self) -> None:
        now = self.clock.seconds()
        if now >= self._turn + 2 * self.span:
            self._now, self._before, self._turn = set(), set(), now
        elif now >= self._turn + self.span or len(self._now) >= _REMEMBERED:
            # More than can be remembered turns sooner: a push that then fails is repeated.
            self._before, self._now, self._turn = self._now, set(), now


@implementer(IPresenceGate)
class CollectorGate:
    """Obeys the lists of collectors on the same store.

    Somebody must call :meth:`look` every few seconds, see
    :class:`~twisted_registry.maintenance.attendance.Attendance`.

    :ivar clock: measures terms; it is never compared with another machine's.
    :ivar memory: seconds for which an answer that something is present keeps it from being
        proposed.
    :ivar id: of this process.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        clock: IReactorTime,
        memory: float = 600.0,
    ) -> None:
        self.driver = driver
        self.clock = clock
        self.memory = memory
        self.id = str(uuid4())
        self._list: Listed | None = None
        #: what was in the store when this process read it last
        self._read: Listed | None = None
        self._seen = 0.0
        self._obeyed = False
        #: when the last record was begun that a look at the list followed
        self._attended: float | None = None
        #: the ids of the lists that will be acknowledged when it is quiet, and that were
        self._quieting = ""
        self._acknowledged = ""
        self._recording = DeferredLock()
        self._lately = _Lately(self.clock, self.memory)
        self._under_way: set[object] = set()
        self._quiet: list[tuple[set[object], Deferred[None]]] = []
        self._changes: list[Deferred[None]] = []

    def admits(self, repository: str | None, digest: Digest) -> bool | Deferred[bool]:
        """Whether content may be called present; it is kept if that is said."""
        known = self._list
        if known is not None and known.names(repository, digest) and not self._is_void():
            if self._obeyed:
                return False
            return Deferred.fromCoroutine(self._leased(known, digest))
        self._lately.note(digest)
        return True

    async def passed(self, repository: str, digests: Iterable[Digest]) -> None:
        """Wait until no list that is obeyed names any of ``digests``, or for some seconds."""
        named, began = tuple(digests), self.clock.seconds()
        while self.clock.seconds() - began < _PATIENCE:
            known = self._list
            if known is None or not self._obeyed or self._is_void():
                return
            if not any(known.names(repository, digest) for digest in named):
                return
            await self._change()

    @asynccontextmanager
    async def storing(self, repository: str, digest: Digest) -> AsyncIterator[None]:
        """Keep the collector from what is stored inside the block.

        :raises RegistryError: UNAVAILABLE, if a sweep does not pass in time or others can not
            know that this process lives.
        """
        began = self.clock.seconds()
        while (reason := self._reason_to_wait(repository, digest)) is not None:
            if self.clock.seconds() - began >= _PATIENCE:
                raise RegistryError(
                    ErrorCode.UNAVAILABLE,
                    message=f"{reason}; try again",
                    headers=(("Retry-After", "10"),),
                )
            await self._change()
        with self._working():
            known = self._list
            if known is not None and known.names(repository, digest) and not self._is_void():
                await self._lease(known, [digest])
            yield

    async def refused(self, repository: str, digests: Iterable[Digest]) -> list[Digest]:
        """Which of ``digests`` are condemned by the list as it is in the store now."""
        fresh = await self._fresh()
        if fresh is None or fresh.phase is not Phase.CONDEMNED:
            return []
        if self._list is not None and fresh.id == self._list.id and self._is_void():
            return []
        return [digest for digest in digests if fresh.names(repository, digest)]

    async def look(self) -> None:
        """Renew the record of this process if it is time, then see whether there is a list.

        In this order: who finds no record has published the list before, and so it is found.
        """
        now, returns = self.clock.seconds(), self._is_late()
        if returns or now - (self._attended or 0.0) >= RECORD_TERM / 4:
            await self._record()
        else:
            now = self._attended or now
        fresh = await self._fresh()
        self._attended = now
        known, self._list = self._list, fresh
        if fresh is not None and known is not None and fresh.id == known.id:
            self._list = known
        elif fresh is not None:
            # A list that this process finds when it begins to serve may not wait for it.
            self._seen, self._obeyed = self.clock.seconds(), returns
        if self._list is not None and self._list.id != self._quieting:
            await self._acknowledge(self._list)
        waiting, self._changes = self._changes, []
        for one in waiting:
            one.callback(None)

    @property
    def knows_list(self) -> bool:
        """Whether there is a list, as far as this process knows: it will soon be replaced."""
        return self._list is not None

    async def leave(self) -> None:
        """Take the record away: this process serves no more."""
        self._attended = None
        with suppress(PathNotFound):
            await self.driver.delete(layout.process(self.id))

    async def _fresh(self) -> Listed | None:
        self._read = await read_condemned(self.driver, self._read)
        return self._read

    async def _acknowledge(self, fresh: Listed) -> None:
        before = set(self._under_way)
        if fresh.phase is Phase.PROPOSED:
            await self._lease(fresh, self._lately.among(fresh.digests()))
        self._quieting = fresh.id
        quiet: Deferred[None] = Deferred()
        self._quiet.append((before, quiet))
        quiet.addCallback(lambda _: self._obey(fresh))
        quiet.addErrback(lambda failure: log.failure("a list could not be acknowledged", failure))
        self._tell_quiet()

    def _obey(self, fresh: Listed) -> Deferred[None]:
        if self._list is not fresh:
            return succeed(None)
        self._obeyed, self._acknowledged = True, fresh.id
        return Deferred.fromCoroutine(self._record())

    async def _record(self) -> None:
        # One after the other, so that an older record never replaces a newer one.
        async with self._recording:
            content = f"{self._acknowledged} {this_process()}"
            await self.driver.put(layout.process(self.id), content.encode(), durable=False)

    async def _leased(self, known: Listed, digest: Digest) -> bool:
        with self._working():
            await self._lease(known, [digest])
        self._lately.note(digest)
        return True

    async def _lease(self, known: Listed, digests: Iterable[Digest]) -> None:
        for digest in digests:
            await self.driver.put(layout.lease(known.id, digest), b"", durable=False)

    @contextmanager
    def _working(self) -> Iterator[None]:
        token = object()
        self._under_way.add(token)
        try:
            yield
        finally:
            self._under_way.discard(token)
            for before, _ in self._quiet:
                before.discard(token)
            self._tell_quiet()

    def _tell_quiet(self) -> None:
        ended = [quiet for before, quiet in self._quiet if not before]
        self._quiet = [waiting for waiting in self._quiet if waiting[0]]
        for quiet in ended:
            quiet.callback(None)

    def _is_late(self) -> bool:
        return self._attended is None or self.clock.seconds() - self._attended >= _LATE

    def _is_void(self) -> bool:
        return self._list is not None and self.clock.seconds() - self._seen >= self._list.term

    def _reason_to_wait(self, repository: str, digest: Digest) -> str | None:
        if self._is_late():
            return "the store takes no note of this process"
        known = self._list
        if known is None or not self._obeyed or self._is_void():
            return None
        return "this content is being removed" if known.names(repository, digest) else None

    async def _change(self) -> None:
        """Wait for the next look; a second at most, since the list may have become void."""
        change: Deferred[None] = Deferred()
        self._changes.append(change)
        change.addTimeout(1.0, self.clock, lambda *_: None)
        await change
