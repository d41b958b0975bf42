"""The gate between serving processes and the garbage collector, and their protocol.

Setting
=======

Several processes serve one store. A collector, in one of them or in a command, removes what nothing
refers to, without stopping pushes. The danger: a client finds a blob present and does not upload
it; the collector has marked the store before and removes the blob; the client pushes a manifest
that needs it.

There are no locks between processes, and clocks of machines are never compared. Durations are
measured by clocks that nobody sets. The protocol needs
this of the store: a small file is replaced in one step; a read or listing that begins after a write
has completed sees it; files have modification times by one clock, the store's.

Terms: *mark* lists all revisions and follows what they refer to; what it does not reach is
*garbage* if it was stored before the grace period. A *list* names garbage to be removed, see
:mod:`~twisted_registry.gc.delete_list`. A *revision* is the link by which a repository holds a
manifest. *Young* means stored within the grace period.

Rules
=====

Safety (no image that was answered 201 is broken):

1.  The collector publishes a list as condemned, and marks again *after* that. It removes only what
    is condemned and was not reached by this second mark.
2.  A manifest PUT writes its revision link, and *after* that reads the list from the store. If the
    list is condemned and names the manifest or anything it refers to, the PUT is refused.
3.  *After* that, a manifest PUT checks once more that everything it refers to is stored.
4.  The collector looks at the modification time before each removal and leaves young content, and
    removes only during the first half of the list's time to live (TTL), counted from before the
    list was published. A serving process obeys a list for its whole TTL, counted from when it first
    saw it. So removals end while the list is still obeyed.

Liveness (pushes succeed, and bytes that are pushed again are not removed):

5.  A process that begins to serve writes its record, and then reads the list. It renews the record
    every 7.5 seconds. Others consider it dead after 30; after 22.5 it stores nothing more itself,
    and writes no leases.
6.  The collector proposes a list before it condemns it. A process that has seen the proposal writes
    a *lease* for each listed digest that it reports as present or stores, and for each that it
    reported as present or stored during the last ten minutes (less if the grace period is shorter).
7.  A process acknowledges a list in its record when every store and lease that it had begun before
    it saw the list has ended. From then on it *obeys*: clients that ask before a push (HEAD of a
    blob, mount, existence checks of a PUT) find listed digests absent, and a push of a listed
    digest waits for the list to be withdrawn, for at most 20 seconds. A proposed digest that has a
    lease counts as not listed: the process that wrote the lease acknowledges later, so the
    collector sees it.
8.  The collector waits until every process with a live record has acknowledged, and then takes
    leased digests off the list before it condemns it. Processes that obey take over the shorter
    list.
9.  A pull ignores the list: nobody leaves out an upload because of a pull, and a listed digest may
    be needed by a manifest that another process has accepted. A delete ignores it too: it makes
    nothing reachable. HEAD of a manifest by its digest may come before a push or before a pull, so
    it waits for the list to be withdrawn as a push does, and never denies what GET would serve.
10. A refused manifest PUT leaves its link. Removing it could remove that of a concurrent push of
    the same manifest; without a tag it is collected later.
11. A list whose collector has certainly exited counts as withdrawn, as soon as its requests to the
    store can no longer take effect: nobody removes anything.

Why no image that was answered 201 is broken
============================================

Let a PUT write its link at ``L``, read the list at ``R`` and check presence at ``P``, so that
``L < R < P``. Let a collector condemn at ``C``, mark at ``M``, remove at ``D`` and withdraw at
``W``, so that ``C < M < D < W``. Take one blob on the list, and a PUT that needs it.

*   ``R < C``: then ``L < M``. The mark finds the link, reaches the blob, and leaves it (rule 1).
*   ``C < R < W``: the PUT reads the condemned list and is refused (rule 2).
*   ``W < R``: then ``D < P``. Either the blob was removed, and the PUT is refused (rule 3); or it
    is present, and this list never removes it.
*   The list expired before ``R``, because its collector died: nothing is removed after half of the
    TTL (rule 4), so again ``D < P``.
*   It was ignored at ``R``, because its collector had exited: nothing is removed after that (rule
    11), so again ``D < P``.

Leases, records and acknowledgements do not occur in this argument: an unknown process, or one that
ignores rules 5 to 8, has failed pushes, not broken images. For a revision on a list the argument is
the same: rule 2 covers the manifest itself, and a PUT reads its own link at ``P``.

``tests/gc/collector_model.py`` tries every interleaving of two serving processes and a collector,
with stalls, crashes and returns, and shows for each rule what breaks without it.

States
======

====================  ==============================  ============================================
State                 Reported to clients that push   Left by
====================  ==============================  ============================================
Blob or manifest
reachable             present                         its last revision removed: garbage
young                 present                         time: garbage, or reachable
garbage               present                         collector: proposed
proposed              present, with a lease; absent   lease: garbage, off the list; collector:
                      once acknowledged               condemned
condemned             absent                          second mark: reachable; sweep: removed
removed               absent; a push stores it again  push: young
leased, proposed      present                         collector: off the list
List
none                                                  collector creates it: proposed
proposed                                              condemned; withdrawn; expired
condemned                                             withdrawn after the sweep; expired
expired, or of an     as if there were none           the next collector withdraws it
exited collector
Gate
unregistered          nothing is stored               :meth:`CollectorGate.poll`: serving, or
                                                      obeying if there is a list
serving               everything stored is present    a list is seen: draining
draining              listed: present, with a lease   older operations end: obeying
obeying               listed: absent; pushes wait     withdrawn or expired: serving
overdue               nothing is stored; listed:      the record is renewed: serving, or obeying
                      absent
====================  ==============================  ============================================

Events
======

==========================  =======================================================================
Event                       Reaction
==========================  =======================================================================
HEAD or mount               :meth:`CollectorGate.may_report_present`: remember the digest; draining,
                            write a lease first; obeying, answer absent unless leased
HEAD of a manifest          as HEAD; instead of an answer that it is absent,
by its digest               :meth:`CollectorGate.wait_until_unlisted`, and look again
DELETE                      the gate is not asked
blob or manifest is stored  :meth:`CollectorGate.protect_push`: wait while listed and obeying;
                            refuse when overdue; draining, write a lease first; remember the digest
manifest PUT, before        :meth:`CollectorGate.wait_until_unlisted` for what it refers to
manifest PUT, after link    :meth:`CollectorGate.find_listed` (rule 2), then presence (rule 3)
a new list is read          leases for recent digests, then acknowledge (rules 6 and 7)
record is missing           the collector does not wait for that process; its pushes may fail
acknowledgement is missing  the collector gives up after 60 seconds and removes nothing
another list is published   a collector waits for its end, or for its TTL, and then withdraws it; if
                            its owner has certainly exited, only for requests under way to settle
==========================  =======================================================================

Crashes
=======

==============================  ===================================================================
Crash                           Consequence
==============================  ===================================================================
collector, list proposed        processes of the same host and PID namespace ignore the list within
                                seconds; for others it expires after its TTL; nothing was removed
collector, list condemned       as above; until then pushes of listed digests wait, then fail with
                                503; what was not removed is found by the next collection
collector, during a removal     a file is removed or not; with a trash it is in one place or both;
                                links to removed blobs stay until fsck or a push of the blob
collector, before withdrawal    the list and its leases are withdrawn by the next collector
power cut while listing         a torn list counts as none, and is deleted
process, after a lease          the digest stays for one more collection
process, before its answer      the client was told nothing; the link stays as garbage (rule 10)
process, while it serves        its record expires; in one PID namespace it is ignored at once
==============================  ===================================================================

Not guaranteed
==============

*   **A collector that stalls between its last look at the clock and one removal**, for more than
    half of the list's TTL (30 seconds or more: a suspended machine, SIGSTOP, a hanging disk or
    request), removes when the list is no longer obeyed. A blob that a manifest came to need
    meanwhile is lost, and so is a revision that was pushed again meanwhile, although both PUTs were
    answered 201. With a trash, the next mark finds such a blob and restores it; ``registry trash
    restore`` restores a revision. Without a trash, the image has to be pushed again.
*   **A process that stalls for longer than its record lives (30 seconds) while it stores content**
    is not waited for. Bytes that it stores again may be removed at that moment, although the blob
    PUT is answered 201. The manifest PUT that follows is refused (rule 3), and the client has to
    push again.
*   A push may fail although nothing is wrong: with 503 if a sweep takes longer than 20 seconds,
    with MANIFEST_BLOB_UNKNOWN if its blobs were condemned between two of its requests.
*   A blob that no manifest refers to when its grace period ends is garbage, also if its client is
    still busy with the rest of the image. At most 200,000 recent digests are remembered (rule 6).
*   Programs that write to the same store without this gate, such as CNCF Distribution, are not
    protected.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.gc.delete_list import RECORD_TTL_S, Phase, read_delete_list
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_in_batches
from twisted_registry.repository.interfaces import IPresenceGate
from twisted_registry.repository.liveness import has_exited, process_identity
from twisted_registry.repository.presence import content_unavailable
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.gc.delete_list import DeleteListView
    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: Seconds without a renewed record after which a process stores nothing more. It has to stop before
#: others consider it dead.
_RENEWAL_DEADLINE_S = RECORD_TTL_S * 0.75
#: Seconds after which a record is renewed.
_RENEWAL_INTERVAL_S = RECORD_TTL_S / 4
#: Seconds for which a push waits for a sweep.
_SWEEP_WAIT_S = 20.0
#: Seconds after which a waiting push checks again without a poll: the list may have expired.
_EXPIRY_CHECK_S = 1.0
#: Recent digests that are remembered, in each of two windows.
_MAX_RECENT_DIGESTS = 200_000


@define(eq=False, repr=False)
class _RecentDigests:
    """Digests that were reported as present within the last one to two time windows.

    A window ends early when it has many digests.

    :ivar window_s: length of a window in seconds.
    """

    clock: IReactorTime
    window_s: float
    _current: set[str] = field(init=False, factory=set)
    _previous: set[str] = field(init=False, factory=set)
    _rotated_at_s: float = field(init=False, default=0.0)

    def add(self, digest: Digest) -> None:
        """Remember a digest."""
        text = str(digest)
        if text not in self._current or self.clock.seconds() >= self._rotated_at_s + self.window_s:
            self._rotate()
            self._current.add(text)

    def intersection(self, digests: Iterable[str]) -> set[Digest]:
        """Return those of ``digests`` that are remembered."""
        self._rotate()
        found = {text for text in digests if text in self._current or text in self._previous}
        return {Digest.parse(text) for text in found}

    def _rotate(self) -> None:
        now = self.clock.seconds()
        if now >= self._rotated_at_s + 2 * self.window_s:
            self._current, self._previous, self._rotated_at_s = set(), set(), now
        elif now >= self._rotated_at_s + self.window_s or len(self._current) >= _MAX_RECENT_DIGESTS:
            # A push that fails because a window ended early is repeated by its client.
            self._previous, self._current, self._rotated_at_s = self._current, set(), now


@implementer(IPresenceGate)
@define(eq=False, repr=False)
class CollectorGate:
    """Obeys the delete lists of collectors on the same store.

    :meth:`poll` has to be called every few seconds, see :class:`GateHeartbeat`.

    :ivar clock: measures the age of lists and records; it is never compared with another machine's,
        and must not be set.
    :ivar recent_s: seconds for which a digest that was reported as present or stored is leased when
        a list names it.
    :ivar settle_s: seconds for which a request of an exited collector may still take effect. A
        system call ends with its process, a request to an object store does not.
    :ivar id: the name of this process's record.
    """

    driver: IStorageDriver
    clock: IReactorTime
    recent_s: float = 600.0
    settle_s: float = 0.0
    id: str = field(init=False, factory=lambda: str(uuid4()))
    #: the list that applies, from the last poll
    _delete_list: DeleteListView | None = field(init=False, default=None)
    #: ID of the last list whose collector had exited, and when that was noticed
    _abandoned: tuple[str, float] = field(init=False, default=("", 0.0))
    #: the last list that was read for any purpose
    _last_read: DeleteListView | None = field(init=False, default=None)
    _list_seen_at_s: float = field(init=False, default=0.0)
    _is_obeying: bool = field(init=False, default=False)
    #: when the last record was written that was followed by a read of the list
    _record_written_at_s: float | None = field(init=False, default=None)
    #: IDs of the list that is acknowledged as soon as older operations end, and that was last
    _draining_id: str = field(init=False, default="")
    _acknowledged_id: str = field(init=False, default="")
    _record_lock: DeferredLock = field(init=False, factory=DeferredLock)
    _recent_digests: _RecentDigests = field(init=False)
    #: one token for each store or lease under way
    _operations: set[object] = field(init=False, factory=set)
    #: tokens that have to end before a Deferred fires
    _drains: list[tuple[set[object], Deferred[None]]] = field(init=False, factory=list)
    _poll_waiters: list[Deferred[None]] = field(init=False, factory=list)

    @_recent_digests.default
    def _make_recent_digests(self) -> _RecentDigests:
        return _RecentDigests(self.clock, self.recent_s)

    def may_report_present(self, repository: str | None, digest: Digest) -> bool | Deferred[bool]:
        """Return whether content may be reported as present; if so, it will be kept."""
        known = self._list_naming(repository, digest)
        if known is not None:
            if self._is_obeying:
                return Deferred.fromCoroutine(self._report_if_leased(repository, digest))
            if self._is_record_overdue():
                # The collector does not wait for this process, so a lease may come too late.
                return False
            return Deferred.fromCoroutine(self._lease_and_report(known, digest))
        self._recent_digests.add(digest)
        return True

    async def wait_until_unlisted(self, repository: str, digests: Iterable[Digest]) -> None:
        """Wait until the obeyed list names none of ``digests``, for at most 20 seconds."""
        named, began = tuple(digests), self.clock.seconds()
        while self.clock.seconds() - began < _SWEEP_WAIT_S:
            if not self._is_obeying:
                return
            for digest in named:
                if await self._is_hidden(repository, digest):
                    break
            else:
                return
            await self._wait_for_poll()

    @asynccontextmanager
    async def protect_push(self, repository: str, digest: Digest) -> AsyncIterator[None]:
        """Keep the collector from removing content that is stored inside the block.

        :raises RegistryError: UNAVAILABLE if the digest stays condemned for 20 seconds, or the
            record of this process could not be renewed.
        """
        began = self.clock.seconds()
        while (reason := await self._reason_to_wait(repository, digest)) is not None:
            if self.clock.seconds() - began >= _SWEEP_WAIT_S:
                raise content_unavailable(reason)
            await self._wait_for_poll()
        with self._operation():
            known = self._list_naming(repository, digest)
            if known is not None and not self._is_obeying:
                await self._write_leases(known, [digest])
            self._recent_digests.add(digest)
            yield

    async def find_listed(self, repository: str, digests: Iterable[Digest]) -> list[Digest]:
        """Return which of ``digests`` are condemned by the list in the store now (rule 2)."""
        fresh = await self._read_list()
        if fresh is None or fresh.phase is not Phase.CONDEMNED:
            return []
        if (
            self._delete_list is not None
            and fresh.id == self._delete_list.id
            and self._is_list_expired()
        ):
            return []
        named = [digest for digest in digests if fresh.contains(repository, digest)]
        return [] if named and self._is_abandoned(fresh) else named

    async def poll(self) -> None:
        """Renew the record of this process if it is due, then read the list (rule 5).

        A collector that misses the record has published its list before, so the list is found.

        :raises StorageError: if the store fails.
        """
        now, is_registering = self.clock.seconds(), self._is_record_overdue()
        if is_registering or now - (self._record_written_at_s or 0.0) >= _RENEWAL_INTERVAL_S:
            await self._write_record()
        else:
            now = self._record_written_at_s or now
        fresh = await self._read_list()
        if fresh is not None and self._is_abandoned(fresh):
            fresh = None
        self._record_written_at_s = now
        # Of a list that is known already, the condemned form names fewer digests.
        known, self._delete_list = self._delete_list, fresh
        if fresh is not None and (known is None or fresh.id != known.id):
            # The collector of a list that is there at registration may not wait for this process.
            self._list_seen_at_s, self._is_obeying = self.clock.seconds(), is_registering
        if self._delete_list is not None and self._delete_list.id != self._draining_id:
            await self._acknowledge(self._delete_list)
        waiters, self._poll_waiters = self._poll_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    @property
    def has_list(self) -> bool:
        """Whether a list was published at the last poll."""
        return self._delete_list is not None

    async def unregister(self) -> None:
        """Delete the record of this process, which stops serving.

        :raises StorageError: if the store fails.
        """
        self._record_written_at_s = None
        with suppress(PathNotFound):
            await self.driver.delete(layout.process_record(self.id))

    async def _read_list(self) -> DeleteListView | None:
        self._last_read = await read_delete_list(self.driver, self._last_read)
        return self._last_read

    async def _acknowledge(self, fresh: DeleteListView) -> None:
        older = set(self._operations)
        if fresh.phase is Phase.PROPOSED:
            await self._write_leases(fresh, self._recent_digests.intersection(fresh.digests()))
        # Some have ended while the leases were written.
        older &= self._operations
        self._draining_id = fresh.id
        drained: Deferred[None] = Deferred()
        self._drains.append((older, drained))
        drained.addCallback(lambda _: self._start_obeying(fresh))
        drained.addErrback(
            lambda failure: log.failure(
                "delete list could not be acknowledged list={id}", failure, id=fresh.id
            )
        )
        self._fire_drained()

    def _start_obeying(self, fresh: DeleteListView) -> Deferred[None]:
        if self._delete_list is None or self._delete_list.id != fresh.id:
            return succeed(None)
        self._is_obeying, self._acknowledged_id = True, fresh.id
        return Deferred.fromCoroutine(self._write_record())

    async def _write_record(self) -> None:
        # One at a time, so that an older record never replaces a newer one.
        async with self._record_lock:
            content = f"{self._acknowledged_id} {process_identity()}"
            await self.driver.put(layout.process_record(self.id), content.encode(), durable=False)

    async def _lease_and_report(self, known: DeleteListView, digest: Digest) -> bool:
        try:
            with self._operation():
                await self._write_leases(known, [digest])
        except StorageError as error:
            if not error.full:
                raise
            # Listed content without a lease is absent, and reading does not fail.
            return False
        self._recent_digests.add(digest)
        return True

    async def _report_if_leased(self, repository: str | None, digest: Digest) -> bool:
        if await self._is_hidden(repository, digest):
            return False
        if self._list_naming(repository, digest) is None or self._is_obeying:
            self._recent_digests.add(digest)
            return True
        # Another list was published meanwhile.
        answer = self.may_report_present(repository, digest)
        return answer if isinstance(answer, bool) else await answer

    async def _is_leased(self, known: DeleteListView, digest: Digest) -> bool:
        """Return whether the collector will take a digest off a list that this process obeys."""
        if known.phase is not Phase.PROPOSED:
            return False
        try:
            await self.driver.stat(layout.lease_file(known.id, digest))
        except PathNotFound:
            return False
        return True

    async def _write_leases(self, known: DeleteListView, digests: Collection[Digest]) -> None:
        async def write(digest: Digest) -> None:
            await self.driver.put(layout.lease_file(known.id, digest), b"", durable=False)

        await map_in_batches(write, list(digests))

    @contextmanager
    def _operation(self) -> Iterator[None]:
        token = object()
        self._operations.add(token)
        try:
            yield
        finally:
            self._operations.discard(token)
            for older, _ in self._drains:
                older.discard(token)
            self._fire_drained()

    def _fire_drained(self) -> None:
        finished = [drained for older, drained in self._drains if not older]
        self._drains = [drain for drain in self._drains if drain[0]]
        for drained in finished:
            drained.callback(None)

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

    def _is_abandoned(self, published: DeleteListView) -> bool:
        """Return whether the collector of a list has exited, and its last request has ended."""
        if not has_exited(published.owner):
            return False
        if self._abandoned[0] != published.id:
            self._abandoned = published.id, self.clock.seconds()
            log.info("the collector of a delete list has exited list={id}", id=published.id)
        return self.clock.seconds() - self._abandoned[1] >= self.settle_s

    def _list_naming(self, repository: str | None, digest: Digest) -> DeleteListView | None:
        """Return the list that applies, if it names a digest."""
        known = self._delete_list
        if known is None or self._is_list_expired() or not known.contains(repository, digest):
            return None
        return known

    async def _is_hidden(self, repository: str | None, digest: Digest) -> bool:
        """Return whether a digest counts as absent, because of a list that is obeyed."""
        while self._is_obeying and (known := self._list_naming(repository, digest)) is not None:
            if not await self._is_leased(known, digest):
                return True
            if self._delete_list is known:
                return False
        return False

    async def _reason_to_wait(self, repository: str, digest: Digest) -> str | None:
        is_hidden = await self._is_hidden(repository, digest)
        if self._is_record_overdue():
            return "the record of this process could not be renewed"
        return "this content is being removed" if is_hidden else None

    async def _wait_for_poll(self) -> None:
        """Wait for the next poll, or until the list may have expired."""
        polled: Deferred[None] = Deferred()
        self._poll_waiters.append(polled)
        polled.addTimeout(_EXPIRY_CHECK_S, self.clock, lambda *_: None)
        await polled


class GateHeartbeat(Service):
    """Polls a gate every few seconds while the service runs.

    :ivar interval_s: seconds between two polls.
    :ivar busy_interval_s: the same while a list is published, because pushes may wait for its end.
    """

    def __init__(
        self,
        gate: CollectorGate,
        clock: IReactorTime,
        interval_s: float,
        busy_interval_s: float,
    ) -> None:
        """Prepare the service.

        :param interval_s: seconds between two polls.
        :param busy_interval_s: seconds between two polls while a list is published.
        """
        self.setName("gate-heartbeat")
        self.gate = gate
        self.clock = clock
        self.interval_s = interval_s
        self.busy_interval_s = busy_interval_s
        self._polled_at_s = clock.seconds()
        self._loop = LoopingCall(self._poll_if_due)
        self._loop.clock = clock
        self._is_failing = False
        self._polling: Deferred[None] | None = None

    def startService(self) -> None:
        """Poll now, and then periodically."""
        super().startService()
        self._polled_at_s = self.clock.seconds() - self.interval_s
        self._loop.start(self.busy_interval_s)

    def stopService(self) -> Deferred[None]:
        """Stop polling, and delete the record of this process."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._unregister())

    def _poll_if_due(self) -> Deferred[None] | None:
        now = self.clock.seconds()
        # Half a beat early, because the calls of a LoopingCall are never exactly on time.
        idle_s = now - self._polled_at_s
        if idle_s < self.interval_s - self.busy_interval_s / 2 and not self.gate.has_list:
            return None
        self._polled_at_s = now
        self._polling = Deferred.fromCoroutine(self._poll())
        return self._polling

    async def _poll(self) -> None:
        try:
            await self.gate.poll()
        except CancelledError:
            # The service stops.
            return
        except StorageError as error:
            if not self._is_failing:
                log.error(
                    "the store fails; pushes may be refused until it works, because delete lists"
                    " cannot be read: {error}",
                    error=error,
                )
            self._is_failing = True
        except Exception:  # noqa: BLE001 - any error is retried
            if not self._is_failing:
                log.failure("delete list could not be read, will retry")
            self._is_failing = True
        else:
            self._is_failing = False
        self._polling = None

    async def _unregister(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
        try:
            await self.gate.unregister()
        except StorageError as error:
            log.error("record of this process could not be deleted: {error}", error=error)
        except Exception:  # noqa: BLE001 - the record expires by itself
            log.failure("record of this process could not be deleted")
