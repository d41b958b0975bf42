"""The way of events into the queue.

An event is kept in memory until a thread has stored it, together with all that came meanwhile. The
response to a request that changes something waits for that, so its event survives a ``kill -9``
once the client has the response. A pull waits for nothing: the events of the last
:data:`PULL_DELAY_S` may be lost.

If the queue cannot be written, responses wait no longer, and events stay in memory, the newest
:data:`MAX_PENDING` of them, until it can.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.notifications.envelope import make_record, media_type_of
from twisted_registry.notifications.queue import QueueDamaged
from twisted_registry.repository.interfaces import IRegistryListener

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.notifications.envelope import EventSource, Record
    from twisted_registry.notifications.queue import EventQueue
    from twisted_registry.repository.interfaces import Event
    from twisted_registry.storage.threads import Threads

log = Logger()

#: Seconds for which the events of pulls are collected.
PULL_DELAY_S: Final = 0.05
#: Seconds for which a response waits at most.
MAX_WAIT_S: Final = 1.0
#: Seconds after which a failed write is repeated.
RETRY_S: Final = 1.0
#: Events in memory while the queue cannot be written.
MAX_PENDING: Final = 10_000
#: Seconds between two complaints about the queue.
_COMPLAINT_INTERVAL_S: Final = 60.0


@frozen
class EventFilter:
    """Which events an endpoint gets.

    :ivar endpoint: the name of the endpoint.
    :ivar ignored_media_types: media types of targets that it does not get.
    :ivar ignored_actions: actions that it does not get.
    """

    endpoint: str
    ignored_media_types: Collection[str] = frozenset()
    ignored_actions: Collection[str] = frozenset()

    def accepts(self, event: Event) -> bool:
        """Return whether the endpoint gets an event."""
        return (
            event.action not in self.ignored_actions
            and media_type_of(event) not in self.ignored_media_types
        )


@define(eq=False)
class _PendingEvent:
    """An event, until a thread has made its record, and then the record.

    The event of a manifest holds its bytes, which must not stay while the queue cannot be written.
    """

    seconds: float
    endpoints: Sequence[str]
    event: Event | None
    trace: Mapping[str, str]
    record: Record | None = None


@implementer(IRegistryListener)
@define(eq=False)
class NotificationListener:
    """Stores the events that endpoints get.

    :ivar queue: where they are stored; used on ``thread`` only.
    :ivar clock: for delays, and for the time of events.
    :ivar source: this process.
    :ivar with_references: list what manifests refer to.
    :ivar on_stored: called with the number of new events by endpoint, and the number of old ones
        that were dropped for them.
    :ivar trace_headers: returns the headers that pass on the trace of the current request.
    """

    _filters: Sequence[EventFilter]
    _queue: EventQueue
    _thread: Threads
    _clock: IReactorTime
    _source: EventSource
    _with_references: bool
    _on_stored: Callable[[Mapping[str, int], Mapping[str, int]], object]
    _trace_headers: Callable[[], Mapping[str, str]] = dict
    _pending: deque[_PendingEvent] = field(init=False, factory=deque)
    #: how many events were handled and stored, or given up, since the start
    _handled: int = field(init=False, default=0)
    _settled: int = field(init=False, default=0)
    #: responses that wait, each with the number of events that must be stored before
    _waiting: deque[tuple[int, Deferred[None]]] = field(init=False, factory=deque)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _writing: Deferred[None] | None = field(init=False, default=None)
    _is_failing: bool = field(init=False, default=False)
    _next_complaints: dict[str, float] = field(init=False, factory=dict)
    #: events that were dropped since the start, by endpoint
    _dropped: Counter[str] = field(init=False, factory=Counter)

    def handle_event(self, event: Event) -> None:
        """Keep an event for the endpoints that get it."""
        endpoints = [each.endpoint for each in self._filters if each.accepts(event)]
        if not endpoints:
            return
        if event.content is not None and not self._with_references:
            event = evolve(event, content=None)
        pending = _PendingEvent(self._clock.seconds(), endpoints, event, self._trace_headers())
        self._pending.append(pending)
        self._handled += 1
        self._drop_excess()
        if self._timer is None and self._writing is None:
            self._timer = self._clock.callLater(PULL_DELAY_S, self._start_writing)

    def use_filters(self, filters: Sequence[EventFilter]) -> None:
        """Store further events for other endpoints."""
        self._filters = filters

    def wait_until_stored(self) -> Deferred[None] | None:
        """Fire when all events so far are stored, after :data:`MAX_WAIT_S` at the latest.

        :returns: None if there is nothing to wait for, or if the queue cannot be written.
        """
        if self._settled == self._handled or self._is_failing:
            return None
        stored: Deferred[None] = Deferred()
        stored.addTimeout(MAX_WAIT_S, self._clock)
        stored.addErrback(_ignore_timeout)
        self._waiting.append((self._handled, stored))
        self._start_writing()
        return stored

    async def close(self) -> None:
        """Store what is left."""
        self._start_writing()
        if self._writing is not None:
            await self._writing
        self._cancel_timer()
        if self._pending:
            log.error(
                "notifications: queue={path} lost={count}: it cannot be written at the stop",
                path=self._queue.path,
                count=len(self._pending),
            )

    def _start_writing(self) -> None:
        self._cancel_timer()
        if self._writing is None and self._pending:
            self._writing = Deferred.fromCoroutine(self._write_all())
            self._writing.addCallback(self._writing_ended)

    def _writing_ended(self, _: None) -> None:
        self._writing = None
        if self._pending:
            self._timer = self._clock.callLater(RETRY_S, self._start_writing)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    async def _write_all(self) -> None:
        """Store what is pending, until nothing is or it fails."""
        while self._pending:
            batch = list(self._pending)
            self._pending.clear()
            try:
                added, dropped = await self._thread.run_blocking(self._store, batch)
            except (sqlite3.Error, OSError, QueueDamaged) as error:
                self._pending.extendleft(reversed(batch))
                self._drop_excess()
                self._fail(error)
                return
            except Exception:  # noqa: BLE001 - the events would fail again
                log.failure("notifications: {count} events are lost", count=len(batch))
            else:
                self._report_stored(added, dropped)
            self._settled += len(batch)
            self._release(self._settled)

    def _store(self, batch: Sequence[_PendingEvent]) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Store a batch, on the thread; return how many events were added, and dropped."""
        rows = []
        added: dict[str, int] = {}
        for each in batch:
            if each.event is not None:
                each.record = make_record(
                    each.event,
                    str(uuid.uuid4()),
                    each.seconds,
                    self._source,
                    with_references=self._with_references,
                )
                if each.trace:
                    each.record["trace"] = dict(each.trace)
                each.event = None
            assert each.record is not None
            for endpoint in each.endpoints:
                rows.append((endpoint, each.record))
                added[endpoint] = added.get(endpoint, 0) + 1
        return added, self._queue.add(rows)

    def _report_stored(self, added: Mapping[str, int], dropped: Mapping[str, int]) -> None:
        if self._is_failing:
            self._is_failing = False
            log.info("notifications: queue={path}: it can be written again", path=self._queue.path)
        self._report_dropped(
            dropped,
            "the queue is full; raise notifications.queue.maxevents, or look at the endpoint",
        )
        self._on_stored(added, dropped)

    def _report_dropped(self, dropped: Mapping[str, int], reason: str) -> None:
        self._dropped.update(dropped)
        for endpoint in dropped:
            self._complain(
                endpoint,
                "notifications: endpoint={endpoint} dropped={count}: old events are dropped:"
                " {reason}",
                endpoint=endpoint,
                count=self._dropped[endpoint],
                reason=reason,
            )

    def _fail(self, error: Exception) -> None:
        self._is_failing = True
        self._release(self._handled)
        self._complain(
            "",
            "notifications: queue={path} in_memory={count}: it cannot be written: {error}",
            path=self._queue.path,
            count=len(self._pending),
            error=str(error),
        )

    def _complain(self, subject: str, text: str, **fields: object) -> None:
        """Log a warning, unless there was one about the subject a short time ago.

        :param subject: an endpoint; empty for the queue.
        """
        now = self._clock.seconds()
        if now >= self._next_complaints.get(subject, 0):
            self._next_complaints[subject] = now + _COMPLAINT_INTERVAL_S
            log.warn(text, **fields)

    def _drop_excess(self) -> None:
        dropped: Counter[str] = Counter()
        while len(self._pending) > MAX_PENDING:
            dropped.update(self._pending.popleft().endpoints)
            self._settled += 1
        if dropped:
            self._report_dropped(dropped, "the queue cannot be written, and memory has a bound")
            self._on_stored(dropped, dropped)

    def _release(self, number: int) -> None:
        """Release the responses that wait for the first ``number`` events."""
        while self._waiting and self._waiting[0][0] <= number:
            _, stored = self._waiting.popleft()
            if not stored.called:
                stored.callback(None)


def _ignore_timeout(reason: Failure) -> None:
    reason.trap(DeferredTimeout)
