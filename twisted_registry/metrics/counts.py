"""Counters and histograms in plain dictionaries, summed over the processes of a registry.

A request only adds to numbers; they become text when Prometheus scrapes them
(:mod:`twisted_registry.metrics.prometheus`). What other objects count, such as caches and thread
pools, is read then as well (:attr:`Counts.sources`). The families are in
:mod:`twisted_registry.metrics.families`.

A worker writes its counts every few seconds, if they have changed, to the pipe that carries its
log. The first process answers for all workers. The counts of a worker that has ended are kept.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.web.http import RESPONSES
from zope.interface import implementer

from twisted_registry.metrics.families import METRIC_FAMILIES
from twisted_registry.metrics.interfaces import (
    COUNTS_PREFIX,
    ICountsReceiver,
    IMetricsObserver,
    INotificationsObserver,
)
from twisted_registry.storage.interfaces import DISTRIBUTION_ACTIONS, IStorageObserver

if TYPE_CHECKING:
    from typing import TextIO

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.metrics.interfaces import FinishedRequest
    from twisted_registry.metrics.repositories import RepositoryNames

#: The name of a metric family, then the values of its labels.
SeriesKey: TypeAlias = tuple[str, ...]
#: Returns the present values of series; those of counters never decrease.
Source: TypeAlias = Callable[[], Mapping[SeriesKey, float]]

#: Seconds between two reports of a worker, so also the maximum age of its counts.
REPORT_INTERVAL_S = 2.0

#: As in Distribution. A client may send any method; each would add series that are never removed.
_METHOD_LABELS = {
    name: name.lower()
    for name in (
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        *("CONNECT", "NOTIFY", "OPTIONS", "TRACE"),
    )
}
_UNKNOWN_METHOD = "unknown"


@define(eq=False)
class Histogram:
    """The number of values in each bucket, and their sum; the last bucket has no upper bound."""

    buckets: list[int]
    total: float = 0.0

    def add(self, other: Histogram) -> None:
        """Add a histogram with the same bounds."""
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.total += other.total


@implementer(IMetricsObserver, INotificationsObserver, IStorageObserver)
@define(eq=False)
class Counts:
    """The measurements of one process, or the sum over several.

    :ivar values: counters and gauges.
    :ivar sources: functions that return the present values of further series of this process;
        :meth:`collect` calls them.
    """

    values: dict[SeriesKey, float] = field(factory=dict)
    histograms: dict[SeriesKey, Histogram] = field(factory=dict)
    sources: list[Source] = field(factory=list)

    def declare(self, name: str, labels: Iterable[str]) -> None:
        """Begin series at 0, so that their first increase can be seen.

        :param name: of a metric with one label.
        :param labels: the values of the label.
        """
        for label in labels:
            self.values.setdefault((name, label), 0)

    def collect(self) -> None:
        """Read the values of all sources."""
        for source in self.sources:
            self.values.update(source())

    def increment(self, key: SeriesKey, value: float) -> None:
        """Add to a counter or gauge."""
        self.values[key] = self.values.get(key, 0) + value

    def request_started(self, handler: str) -> None:
        """Count a request in progress."""
        self.increment(("registry_http_in_flight_requests", handler), 1)

    def request_finished(self, request: FinishedRequest) -> None:
        """Count a finished request, its duration and its sizes."""
        handler = request.handler
        method = _METHOD_LABELS.get(request.method, _UNKNOWN_METHOD)
        self.increment(("registry_http_in_flight_requests", handler), -1)
        self.increment(("registry_http_requests", handler, method, str(request.status)), 1)
        self._observe(
            ("registry_http_request_duration_seconds", handler, method), request.duration_s
        )
        self._observe(("registry_http_response_size_bytes", handler), request.sent_bytes)
        self._observe(("registry_http_request_size_bytes", handler), request.received_bytes)

    def limit_hit(self, limit: str) -> None:
        """Count something that was refused because of a limit."""
        self.increment(("registry_limits_hit", limit), 1)

    def login_cache_used(self, hit: bool) -> None:  # noqa: FBT001
        """Count a login that was found in a cache of logins, or was not."""
        self.increment(("registry_cache_requests", "logins", "hit" if hit else "miss"), 1)

    def loop_delayed(self, seconds: float) -> None:
        """Count a measurement of how late the event loop makes a call."""
        self._observe(("registry_event_loop_delay_seconds",), seconds)

    def call_ended(self, driver: str, action: str, seconds: float, failed: bool) -> None:  # noqa: FBT001
        """Count a storage call, and whether it failed."""
        action = DISTRIBUTION_ACTIONS.get(action, action)
        self._observe(("registry_storage_action_seconds", driver, action), seconds)
        if failed:
            self.increment(("registry_storage_errors", driver, action), 1)

    def events_stored(self, endpoint: str, count: int) -> None:
        """Count events that wait for an endpoint."""
        self.increment(("registry_notifications_events", "Events", endpoint), count)

    def events_dropped(self, endpoint: str, count: int) -> None:
        """Count events that were dropped because too many wait."""
        self.increment(("registry_notifications_events", "Dropped", endpoint), count)

    def attempt_ended(self, endpoint: str, status: int, accepted: bool) -> None:  # noqa: FBT001
        """Count an attempt; one without a response is an error, as in Distribution."""
        if status:
            code = f"{status} {RESPONSES.get(status, b'').decode('ascii')}".rstrip()
            self.increment(("registry_notifications_status", code, endpoint), 1)
        result = "Successes" if accepted else "Failures" if status else "Errors"
        self.increment(("registry_notifications_events", result, endpoint), 1)

    def merge(self, other: Counts, *, process_ended: bool = False) -> None:
        """Add the counts of another process.

        :param process_ended: leave out gauges, because the other process has ended.
        """
        values = self.values
        for key, value in other.values.items():
            family = METRIC_FAMILIES[key[0]]
            if not (process_ended and family.is_gauge):
                values[key] = family.combine(values[key], value) if key in values else value
        for key, histogram in other.histograms.items():
            self._get_histogram(key).add(histogram)

    def to_bytes(self) -> bytes:
        """Serialize all counts as one line of JSON, without the line break."""
        content = {
            "numbers": [[key, value] for key, value in self.values.items()],
            "histograms": [
                [key, histogram.buckets, histogram.total]
                for key, histogram in self.histograms.items()
            ],
        }
        return json.dumps(content, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> Counts:
        """Parse the counts of a process that runs the same version."""
        document = json.loads(content)
        return cls(
            {tuple(key): value for key, value in document["numbers"]},
            {
                tuple(key): Histogram(buckets, total)
                for key, buckets, total in document["histograms"]
            },
        )

    def _observe(self, key: SeriesKey, value: float) -> None:
        histogram = self._get_histogram(key)
        histogram.buckets[bisect_left(METRIC_FAMILIES[key[0]].bounds, value)] += 1
        histogram.total += value

    def _get_histogram(self, key: SeriesKey) -> Histogram:
        found = self.histograms.get(key)
        if found is None:
            found = Histogram([0] * (len(METRIC_FAMILIES[key[0]].bounds) + 1))
            self.histograms[key] = found
        return found


@implementer(ICountsReceiver)
@define(eq=False)
class AggregatedCounts:
    """The counts of this process and of all workers.

    :ivar own: counted by this process.
    :ivar repositories: the repositories that have series of their own; None for none.
    """

    own: Counts = field(factory=Counts)
    repositories: RepositoryNames | None = None
    _by_pid: dict[int, Counts] = field(init=False, factory=dict)
    _ended: Counts = field(init=False, factory=Counts)

    def update(self, pid: int, report: bytes) -> None:
        """Replace the counts of a worker."""
        counts = Counts.from_bytes(report)
        if self.repositories is not None:
            self.repositories.relabel(counts)
        self._by_pid[pid] = counts

    def process_ended(self, pid: int) -> None:
        """Keep the counters of a worker that has ended, and drop its gauges."""
        last = self._by_pid.pop(pid, None)
        if last is not None:
            self._ended.merge(last, process_ended=True)

    def total(self) -> Counts:
        """Return the sum over all processes."""
        self.own.collect()
        total = Counts()
        for counts in (self.own, self._ended, *self._by_pid.values()):
            total.merge(counts)
        return total


class CountsReporter(Service):
    """Reports the counts of a worker to the first process while the service runs.

    :param counts: the counts to report.
    :param stream: the pipe to the first process.
    """

    def __init__(self, counts: Counts, stream: TextIO, clock: IReactorTime) -> None:
        self.setName("reporting")
        self._counts = counts
        self._stream = stream
        self._last_report = b""
        self._loop = LoopingCall(self._write_report)
        self._loop.clock = clock

    def startService(self) -> None:
        """Report every :data:`REPORT_INTERVAL_S`."""
        super().startService()
        self._loop.start(REPORT_INTERVAL_S, now=False)

    def stopService(self) -> None:
        """Report one last time."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        self._write_report()

    def _write_report(self) -> None:
        self._counts.collect()
        report = self._counts.to_bytes()
        if report != self._last_report:
            self._last_report = report
            self._stream.write(f"{(COUNTS_PREFIX + report).decode('ascii')}\n")
            self._stream.flush()
