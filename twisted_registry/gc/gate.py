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

Keeps the collector's gate of this process informed, and others informed of this process.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.gc.delete_list import RECORD_TTL_S, Phase, read_delete_list
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.interfaces import IPresenceGate
from twisted_registry.repository.liveness import process_identity
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.gc.delete_list import DeleteListView
    from twisted_registry.storage.interfaces import IStorageDriver
    # @@EMPTY

log = Logger()

#: Seconds without a renewed record after which a process stores no more: it must notice before
#: others take it for dead.
_RENEWAL_DEADLINE_S = RECORD_TTL_S * 0.75
#: Seconds for which a push waits for a sweep to pass.
_SWEEP_WAIT_S = 20.0
#: Digests of which it is remembered that they were called present lately.
_MAX_RECENT_DIGESTS = 200_000


class _RecentlyPresent:
    """What was called present in the last one to two spans of time.

    :ivar span: seconds.
    """

    def __init__(self, clock: IReactorTime, window_s: float) -> None:
        self.clock = clock
        self.window_s = window_s
        self._current: set[str] = set()
        self._previous: set[str] = set()
        self._rotated_at_s = 0.0

    def add(self, digest: Digest) -> None:
        """Remember a digest."""
        text = str(digest)
        if text not in self._current or self.clock.seconds() >= self._rotated_at_s + self.window_s:
            self._rotate()
            self._current.add(text)

    def intersection(self, digests: Iterable[str]) -> set[Digest]:
        """Those of ``digests`` that are remembered."""
        self._rotate()
        found = {text for text in digests if text in self._current or text in self._previous}
        return {Digest.parse(text) for text in found}

    def _rotate(self) -> None:
        now = self.clock.seconds()
        if now >= self._rotated_at_s + 2 * self.window_s:
            self._current, self._previous, self._rotated_at_s = set(), set(), now
        elif now >= self._rotated_at_s + self.window_s or len(self._current) >= _MAX_RECENT_DIGESTS:
            # More than can be remembered turns sooner: a push that then fails is repeated.
            self._previous, self._current, self._rotated_at_s = self._current, set(), now


@implementer(IPresenceGate)
class CollectorGate:
    """Obeys the lists of collectors on the same store.

    Somebody must call :meth:`poll` every few seconds, see
    :class:`~twisted_registry.gc.gate.GateHeartbeat`.

    :ivar clock: measures terms; it is never compared with another machine's.
    :ivar memory: seconds for which an answer that something is present keeps it from being
        proposed.
    :ivar id: of this process.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        clock: IReactorTime,
        recent_s: float = 600.0,
    ) -> None:
        self.driver = driver
        self.clock = clock
        self.recent_s = recent_s
        self.id = str(uuid4())
        self._delete_list: DeleteListView | None = None
        #: what was in the store when this process read it last
        self._last_read: DeleteListView | None = None
        self._list_seen_at_s = 0.0
        self._is_obeying = False
        #: when the last record was begun that a look at the list followed
        self._record_written_at_s: float | None = None
        #: the ids of the lists that will be acknowledged when it is quiet, and that were
        self._draining_id = ""
        self._acknowledged_id = ""
        self._record_lock = DeferredLock()
        self._recently_present = _RecentlyPresent(self.clock, self.recent_s)
        self._operations: set[object] = set()
        self._drains: list[tuple[set[object], Deferred[None]]] = []
        self._poll_waiters: list[Deferred[None]] = []

    def may_report_present(self, repository: str | None, digest: Digest) -> bool | Deferred[bool]:
        """Whether content may be called present; it is kept if that is said."""
        known = self._delete_list
        if known is not None and known.contains(repository, digest) and not self._is_list_expired():
            if self._is_obeying:
                return False
            return Deferred.fromCoroutine(self._lease_and_report(known, digest))
        self._recently_present.add(digest)
        return True

    async def wait_until_unlisted(self, repository: str, digests: Iterable[Digest]) -> None:
        """Wait until no list that is obeyed names any of ``digests``, or for some seconds."""
        named, began = tuple(digests), self.clock.seconds()
        while self.clock.seconds() - began < _SWEEP_WAIT_S:
            known = self._delete_list
            if known is None or not self._is_obeying or self._is_list_expired():
                return
            if not any(known.contains(repository, digest) for digest in named):
                return
            await self._wait_for_poll()

    @asynccontextmanager
    async def protect_push(self, repository: str, digest: Digest) -> AsyncIterator[None]:
        """Keep the collector from what is stored inside the block.

        :raises RegistryError: UNAVAILABLE, if a sweep does not pass in time or others can not
            know that this process lives.
        """
        began = self.clock.seconds()
        while (reason := self._reason_to_wait(repository, digest)) is not None:
            if self.clock.seconds() - began >= _SWEEP_WAIT_S:
                raise RegistryError(
                    ErrorCode.UNAVAILABLE,
                    message=f"{reason}; try again",
                    headers=(("Retry-After", "10"),),
                )
            await self._wait_for_poll()
        with self._operation():
            known = self._delete_list
            if (
                known is not None
                and known.contains(repository, digest)
                and not self._is_list_expired()
            ):
                await self._write_leases(known, [digest])
            yield

    async def find_listed(self, repository: str, digests: Iterable[Digest]) -> list[Digest]:
        """Which of ``digests`` are condemned by the list as it is in the store now."""
        fresh = await self._read_list()
        if fresh is None or fresh.phase is not Phase.CONDEMNED:
            return []
        if (
            self._delete_list is not None
            and fresh.id == self._delete_list.id
            and self._is_list_expired()
        ):
            return []
        return [digest for digest in digests if fresh.contains(repository, digest)]

    async def poll(self) -> None:
        """Renew the record of this process if it is time, then see whether there is a list.

        In this order: who finds no record has published the list before, and so it is found.
        """
        now, returns = self.clock.seconds(), self._is_record_overdue()
        if returns or now - (self._record_written_at_s or 0.0) >= RECORD_TTL_S / 4:
            await self._write_record()
        else:
            now = self._record_written_at_s or now
        fresh = await self._read_list()
        self._record_written_at_s = now
        known, self._delete_list = self._delete_list, fresh
        if fresh is not None and known is not None and fresh.id == known.id:
            self._delete_list = known
        elif fresh is not None:
            # A list that this process finds when it begins to serve may not wait for it.
            self._list_seen_at_s, self._is_obeying = self.clock.seconds(), returns
        if self._delete_list is not None and self._delete_list.id != self._draining_id:
            await self._acknowledge(self._delete_list)
        waiting, self._poll_waiters = self._poll_waiters, []
        for one in waiting:
            one.callback(None)

    @property
    def has_list(self) -> bool:
        """Whether there is a list, as far as this process knows: it will soon be replaced."""
        return self._delete_list is not None

    async def unregister(self) -> None:
        """Take the record away: this process serves no more."""
        self._record_written_at_s = None
        with suppress(PathNotFound):
            await self.driver.delete(layout.process(self.id))

    async def _read_list(self) -> DeleteListView | None:
        self._last_read = await read_delete_list(self.driver, self._last_read)
        return self._last_read

    async def _acknowledge(self, fresh: DeleteListView) -> None:
        before = set(self._operations)
        if fresh.phase is Phase.PROPOSED:
            await self._write_leases(fresh, self._recently_present.intersection(fresh.digests()))
        self._draining_id = fresh.id
        quiet: Deferred[None] = Deferred()
        self._drains.append((before, quiet))
        quiet.addCallback(lambda _: self._start_obeying(fresh))
        quiet.addErrback(lambda failure: log.failure("a list could not be acknowledged", failure))
        self._fire_drained()

    def _start_obeying(self, fresh: DeleteListView) -> Deferred[None]:
        if self._delete_list is not fresh:
            return succeed(None)
        self._is_obeying, self._acknowledged_id = True, fresh.id
        return Deferred.fromCoroutine(self._write_record())

    async def _write_record(self) -> None:
        # One after the other, so that an older record never replaces a newer one.
        async with self._record_lock:
            content = f"{self._acknowledged_id} {process_identity()}"
            await self.driver.put(layout.process(self.id), content.encode(), durable=False)

    async def _lease_and_report(self, known: DeleteListView, digest: Digest) -> bool:
        with self._operation():
            await self._write_leases(known, [digest])
        self._recently_present.add(digest)
        return True

    async def _write_leases(self, known: DeleteListView, digests: Iterable[Digest]) -> None:
        for digest in digests:
            await self.driver.put(layout.lease(known.id, digest), b"", durable=False)

    @contextmanager
    def _operation(self) -> Iterator[None]:
        token = object()
        self._operations.add(token)
        try:
            yield
        finally:
            self._operations.discard(token)
            for before, _ in self._drains:
                before.discard(token)
            self._fire_drained()

    def _fire_drained(self) -> None:
        ended = [quiet for before, quiet in self._drains if not before]
        self._drains = [waiting for waiting in self._drains if waiting[0]]
        for quiet in ended:
            quiet.callback(None)

    def _is_record_overdue(self) -> bool:
        return (
            self._record_written_at_s is None
            or self.clock.seconds() - self._record_written_at_s >= _RENEWAL_DEADLINE_S
        )

    def _is_list_expired(self) -> bool:
        return (
            self._delete_list is not None
            and self.clock.seconds() - self._list_seen_at_s >= self._delete_list.ttl_s
        )

    def _reason_to_wait(self, repository: str, digest: Digest) -> str | None:
        if self._is_record_overdue():
            return "the store takes no note of this process"
        known = self._delete_list
        if known is None or not self._is_obeying or self._is_list_expired():
            return None
        return "this content is being removed" if known.contains(repository, digest) else None

    async def _wait_for_poll(self) -> None:
        """Wait for the next look; a second at most, since the list may have become void."""
        change: Deferred[None] = Deferred()
        self._poll_waiters.append(change)
        change.addTimeout(1.0, self.clock, lambda *_: None)
        await change


class GateHeartbeat(Service):
    """Lets a gate look at the store every few seconds, while the service runs."""

    def __init__(
        self,
        gate: CollectorGate,
        clock: IReactorTime,
        interval: float,
        busy_interval: float | None = None,
    ) -> None:
        """Take the gate.

        :param interval: seconds from one look to the next.
        :param busy: the same while there is a list, since pushes may wait for its end.
        """
        self.setName("attendance")
        self._gate = gate
        self._interval = interval
        self._busy_interval = busy_interval or interval
        self._clock = clock
        self._polled_at_s = clock.seconds()
        self._loop = LoopingCall(self._poll_if_due)
        self._loop.clock = clock
        self._failing = False
        self._polling: Deferred[None] | None = None

    def startService(self) -> None:
        """Look, and go on looking."""
        super().startService()
        self._polled_at_s = self._clock.seconds() - self._interval
        self._loop.start(self._busy_interval)

    def stopService(self) -> Deferred[None]:
        """Look no more, and take the record of this process away."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._unregister())

    def _poll_if_due(self) -> Deferred[None] | None:
        now = self._clock.seconds()
        # Half a turn early, since the clock of a loop is never quite on time.
        if (
            now - self._polled_at_s < self._interval - self._busy_interval / 2
            and not self._gate.has_list
        ):
            return None
        self._polled_at_s = now
        return self._start_poll()

    def _start_poll(self) -> Deferred[None]:
        self._polling = looking = Deferred.fromCoroutine(self._poll_gate())
        return looking

    async def _poll_gate(self) -> None:
        try:
            await self._gate.poll()
        except CancelledError:
            # The service stops.
            return
        except StorageError as error:
            if not self._failing:
                log.error(
                    "the collector's list could not be looked at; it will be tried again: {error}",
                    error=error,
                )
            self._failing = True
        except Exception:  # noqa: BLE001 - whatever it was, it is tried again
            if not self._failing:
                log.failure("the collector's list could not be looked at; it will be tried again")
            self._failing = True
        else:
            self._failing = False
        self._polling = None

    async def _unregister(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
        try:
            await self._gate.unregister()
        except StorageError as error:
            log.error("the record of this process could not be removed: {error}", error=error)
        except Exception:  # noqa: BLE001 - it will be found to be old
            log.failure("the record of this process could not be removed")
