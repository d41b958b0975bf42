"""The writer of the s3 driver.

Bytes gather on the reactor's thread until there are enough for a chunk, which is then on its way
to the store while the next one gathers: at most two are. A chunk counts when it and all before
it are stored, and were shown to the observer, on a thread. One that fails takes all behind it
with it, and ``size`` tells the truth.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.storage.fed import Fed
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.s3.budget import IHolder
from twisted_registry.storage.s3.failures import explained
from twisted_registry.storage.streams import IWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from twisted_registry.storage.interfaces import Change
    from twisted_registry.storage.s3.budget import Budget
    from twisted_registry.storage.s3.sinks import ISink
    from twisted_registry.storage.threads import Threads

    Decide: TypeAlias = Callable[[int], Sequence[Change]]

log = Logger()

#: Chunks on their way to the store at once.
_FLIGHTS = 2


@define(eq=False)
class _Flight:
    """A chunk on its way.

    :ivar stored: what the sink told when it was stored.
    """

    content: Sequence[bytes]
    size: int
    landed: bool = field(init=False, default=False)
    stored: object = field(init=False, default=None)
    storing: Deferred[object] = field(init=False, factory=Deferred)


@define(eq=False)
class _Sync:
    """A caller who waits until what was written is stored.

    :ivar size: up to which byte.
    :ivar saved: whether a later writer must find it.
    """

    size: int
    saved: bool
    waiting: Deferred[int] = field(factory=Deferred)


@implementer(IWriter, IHolder)
@define(eq=False)
class ObjectWriter(Fed):
    """The one writer of a path in this process.

    :ivar conclude: makes the changes that end the file.
    :ivar chunk: bytes of a chunk, if memory allows.
    :ivar release: called when the path is free again.
    """

    _conclude: Callable[[ObjectWriter, Decide], Deferred[int]]
    path: str
    sink: ISink
    _threads: Threads
    _budget: Budget
    _chunk: int
    _release: Callable[[], object]
    _observe: Callable[[bytes], object] | None = None
    collected: int = field(init=False, default=0)
    _content: list[bytes] = field(init=False, factory=list)
    _flights: deque[_Flight] = field(init=False, factory=deque)
    _syncs: list[_Sync] = field(init=False, factory=list)
    _spilling: bool = field(init=False, default=False)
    _observing: bool = field(init=False, default=False)
    _saving: bool = field(init=False, default=False)
    #: bytes that the sink keeps in memory
    _kept: int = field(init=False, default=0)
    #: whether somebody asked for the file to be there, even if it is empty
    _wanted: bool = field(init=False, default=False)
    _failure_told: bool = field(init=False, default=False)
    _removing: bool = field(init=False, default=False)
    _ended: bool = field(init=False, default=False)
    _enders: list[Deferred[int]] = field(init=False, factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    @property
    def size(self) -> int:
        """Bytes under the path, those still in flight included."""
        return self.sink.size + sum(flight.size for flight in self._flights) + self.collected

    @property
    def mark(self) -> str:
        """Names the bytes that are stored."""
        return self.sink.mark

    @property
    def flying(self) -> bool:
        """Whether bytes are on their way."""
        return bool(self._flights)

    @property
    def is_settled(self) -> bool:
        """Whether all that was written is stored, and more can not come from here."""
        return not (self.collected or self._flights)

    def write(self, data: bytes) -> None:
        """Take bytes; dropped after a failure, ``close`` and ``cancel``."""
        if self._failure is not None or self._ending or not data:
            return
        self._content.append(data)
        self.collected += len(data)
        self._work()
        self._hold()
        self._pause_if_full()

    def flush(self) -> Deferred[int]:
        """Fire with the size once a later writer finds all written so far."""
        if self.sink.keeps or self._failure is not None:
            return self._sync(saved=True)
        # Part of a file is of no use to anybody; the rest will not come.
        self._ending = True
        self._drop()
        return succeed(0)

    def commit(self) -> Deferred[int]:
        """Fire with the size once all written so far is stored, or ready to be."""
        return self._sync(saved=False)

    def conclude(self, decide: Decide) -> Deferred[int]:
        """Commit, make the changes that ``decide`` answers, and close."""
        return self._conclude(self, decide)

    def close(self) -> Deferred[int]:
        """Stop writing, keep what is stored, and let another writer come."""
        if self._ended:
            return succeed(self.sink.size)
        self._ending = True
        ender: Deferred[int] = Deferred()
        self._enders.append(ender)
        self._work()
        return ender

    def cancel(self) -> Deferred[None]:
        """Stop writing, remove the file, and let another writer come."""
        self._removing = self._failure_told = True
        self._drop(StorageError(self.path, "the writer is cancelled"))
        return self.close().addCallback(lambda _: None)

    @property
    def can_spill(self) -> bool:
        """Whether the sink takes what is collected, however little."""
        return self.collected >= max(self.sink.smallest, 1)

    def spill(self) -> None:
        """Send what is collected."""
        self._spilling = True
        self._work()

    def resume(self) -> None:
        """Take more bytes, unless two chunks of our own are held already."""
        full = self.size - self.sink.size >= _FLIGHTS * self._chunk
        if self._paused and not full and self._producer is not None:
            self._paused = False
            self._producer.resumeProducing()

    def _sync(self, *, saved: bool) -> Deferred[int]:
        if self._failure is not None:
            self._failure_told = True
            return fail(self._failure)
        if self._ending:
            return fail(StorageError(self.path, "the writer is closed"))
        self._wanted = True
        sync = _Sync(self.size, saved)
        self._syncs.append(sync)
        self._work()
        return sync.waiting

    def _work(self) -> None:
        """Do what can be done now."""
        while not (self._ended or self._saving) and self._may_start():
            self._start()
        # A store that answers at once may have brought us here before.
        if self._ended or self._saving:
            return
        due = [sync for sync in self._syncs if sync.size <= self.sink.size]
        if due:
            self._syncs = [sync for sync in self._syncs if sync not in due]
            wanted = any(sync.saved for sync in due) and not self.sink.saved
            self._save(due, wanted=wanted)
        elif self._ending and self.is_settled:
            self._end()

    def _may_start(self) -> bool:
        flights = self._flights
        if not self.collected or len(flights) >= _FLIGHTS:
            return False
        if flights and (self.sink.tail or flights[-1].size < self.sink.least):
            return False  # what flies may have to be joined with what would follow
        if self._ending or self._syncs:
            return True
        large = self.sink.least if self._budget.is_spent else self._chunk
        return self._spilling or self.collected + self.sink.tail >= large

    def _start(self) -> None:
        flight = _Flight(self._content, self.collected)
        self._content, self.collected, self._spilling = [], 0, False
        self._flights.append(flight)
        last = self._ending or bool(self._syncs)
        flight.storing = self.sink.store(flight.content, flight.size, last=last)
        flight.storing.addCallback(self._landed, flight)
        flight.storing.addErrback(self._failed, flight)

    def _landed(self, stored: object, flight: _Flight) -> None:
        flight.landed, flight.stored = True, stored
        self._settle()

    def _settle(self) -> None:
        """Count the first chunk if it has landed: they count in order."""
        if self._observing or not self._flights or not self._flights[0].landed:
            return
        flight = self._flights[0]
        if self._observe is None:
            self._count(None, flight)
        else:
            self._observing = True
            showing = self._threads.run(self._show, flight.content)
            showing.addCallbacks(self._count, self._failed, (flight,), errbackArgs=(flight,))

    def _show(self, content: Sequence[bytes]) -> None:
        assert self._observe is not None
        for data in content:
            self._observe(data)

    def _count(self, _: None, flight: _Flight) -> None:
        self._observing = False
        self._flights.popleft()
        if not self.sink.accept(flight.stored):
            self._kept += flight.size
        self._hold()
        self._resume_if_free()
        self._settle()
        self._work()

    def _resume_if_free(self) -> None:
        """Take more bytes if there is memory, or if we hold none of it."""
        if not self._budget.is_spent or not self.collected:
            self.resume()

    def _failed(self, failure: Failure, flight: _Flight) -> None:
        if flight not in self._flights:
            return  # dropped by an earlier failure, or by the caller
        if flight is self._flights[0]:
            self._observing = False
        self._break(explained(failure, self.path))

    def _break(self, error: StorageError) -> None:
        self._failure = error
        self._failure_told = self._failure_told or bool(self._syncs)
        self._drop(error)
        if self._producer is not None:
            self._producer.stopProducing()
        self._work()

    def _drop(self, why: StorageError | None = None) -> None:
        """Forget what is not stored yet, but for what the observer is looking at."""
        flights = list(self._flights)
        self._flights.clear()
        if self._observing:
            self._flights.append(flights.pop(0))
        for flight in flights:
            flight.storing.cancel()
        self._content, self.collected = [], 0
        self._hold()
        syncs, self._syncs = self._syncs, []
        for sync in syncs:
            sync.waiting.errback(why or StorageError(self.path, "the rest did not come"))

    def _save(self, due: Sequence[_Sync], *, wanted: bool) -> None:
        self._saving = True
        saving: Deferred[Any] = self.sink.save() if wanted else succeed(None)

        def saved(_: object) -> None:
            self._saving = False
            for sync in due:
                sync.waiting.callback(sync.size)
            self._work()

        def failed(failure: Failure) -> None:
            self._saving = False
            self._syncs = [*due, *self._syncs]
            self._break(explained(failure, self.path))

        saving.addCallbacks(saved, failed)

    def _end(self) -> None:
        self._saving = True  # nothing else can begin any more
        if self._removing:
            ending = maybeDeferred(self.sink.remove)
        elif not self.sink.saved and self._is_worth_saving:
            ending = maybeDeferred(self.sink.save)
        else:
            ending = succeed(None)
        ending.addBoth(self._leave)

    @property
    def _is_worth_saving(self) -> bool:
        if self.sink.current.is_gone:
            return False
        return bool(self.sink.size) or (self._wanted and self._failure is None)

    def _leave(self, result: Failure | None) -> None:
        def told(failure: Failure) -> None:
            # Strays cost room, and go with the folder of the upload.
            log.warn(
                "pieces of {path} that nobody needs could not be removed: {error}",
                path=self.path, error=failure.getErrorMessage(),
            )  # fmt: skip

        leaving = maybeDeferred(self.sink.leave)
        leaving.addErrback(told)
        leaving.addCallback(lambda _: self._left(result))

    def _left(self, result: Failure | None) -> None:
        self._ended = True
        self._kept = 0
        self._hold()
        self._release()
        error: BaseException | None = None
        if result is not None:
            error = explained(result, self.path)
        elif not self._failure_told:
            error = self._failure
        enders, self._enders = self._enders, []
        for ender in enders:
            if error is None:
                ender.callback(self.sink.size)
            else:
                ender.errback(error)

    def _hold(self) -> None:
        held = self.size - self.sink.size + self._kept
        if self._flights and self._flights[0].size < self.sink.least:
            held += self.sink.tail  # which is read, to be stored again
        self._budget.hold(self, held)

    def _pause_if_full(self) -> None:
        short = self._budget.is_spent and self.can_spill
        full = self.size - self.sink.size >= _FLIGHTS * self._chunk
        if (full or short) and self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()
            self._budget.relieve()
