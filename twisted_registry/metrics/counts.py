"""What is measured: counters and histograms, in plain dictionaries.

A request adds to some numbers and nothing else. They become text when somebody asks. Those of
several processes are added up, see :mod:`twisted_registry.metrics.counts`.

The numbers of several processes: each tells the first, which answers for all.

A worker writes what it has counted to the pipe that its log takes, every few seconds if something
has changed. What one that has ended counted stays counted.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from twisted_registry.metrics.interfaces import IMetricsObserver
from twisted_registry.storage.interfaces import IStorageObserver
from twisted_registry.workers.logs import COUNTS_PREFIX, ICountsReceiver

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.metrics.interfaces import FinishedRequest

#: The name of a family, then the values of its labels.
SeriesKey = tuple[str, ...]

_DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
_SIZE_BUCKETS_BYTES = tuple(1024.0 * 2**power for power in range(22))


@frozen
class MetricFamily:
    """Numbers of one name.

    :ivar text: what they say.
    :ivar labels: the names of the labels.
    :ivar bounds: the upper bounds of a histogram's buckets; empty if it is none.
    :ivar passing: whether they tell of this moment, and go with their process.
    """

    text: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    is_gauge: bool = False


#: By the names that CNCF Distribution 2.8.3 gives them, where it has them.
METRIC_FAMILIES: Mapping[str, MetricFamily] = {
    "registry_http_requests": MetricFamily("Requests.", ("handler", "method", "code")),
    "registry_http_request_duration_seconds": MetricFamily(
        "From the headers of a request to the end of its answer.",
        ("handler", "method"),
        _DURATION_BUCKETS_S,
    ),
    "registry_http_request_size_bytes": MetricFamily(
        "Bodies of requests whose length was told.", ("handler",), _SIZE_BUCKETS_BYTES
    ),
    "registry_http_response_size_bytes": MetricFamily(
        "Bodies of answers.", ("handler",), _SIZE_BUCKETS_BYTES
    ),
    "registry_http_in_flight_requests": MetricFamily(
        "Requests under way.", ("handler",), is_gauge=True
    ),
    "registry_storage_action_seconds": MetricFamily(
        "Calls to the store.", ("driver", "action"), _DURATION_BUCKETS_S
    ),
    "registry_storage_errors": MetricFamily(
        "Calls in which the store broke down.", ("driver", "action")
    ),
}

#: What Distribution calls the actions of a driver.
_DISTRIBUTION_ACTIONS = {
    "get": "GetContent",
    "put": "PutContent",
    "stat": "Stat",
    "list": "List",
    "move": "Move",
    "delete": "Delete",
    "open": "Reader",
    "writer": "Writer",
    "walk": "Walk",
    "presign": "RedirectURL",
}


@define(eq=False)
class Histogram:
    """How many values lie in each bucket, and their sum; the last bucket has no bound."""

    buckets: list[int]
    total: float = 0.0

    def add(self, other: Histogram) -> None:
        """Add another of the same bounds."""
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.total += other.total


@implementer(IMetricsObserver, IStorageObserver)
@define(eq=False)
class Counts:
    """The numbers of one process, or of several."""

    numbers: dict[SeriesKey, float] = field(factory=dict)
    histograms: dict[SeriesKey, Histogram] = field(factory=dict)

    def request_started(self, handler: str) -> None:
        """As promised by the interface."""
        self._increment(("registry_http_in_flight_requests", handler), 1)

    def request_finished(self, request_finished: FinishedRequest) -> None:
        """As promised by the interface."""
        handler, method = request_finished.handler, _method_label(request_finished.method)
        self._increment(("registry_http_in_flight_requests", handler), -1)
        self._increment(
            ("registry_http_requests", handler, method, str(request_finished.status)), 1
        )
        self._observe(
            ("registry_http_request_duration_seconds", handler, method), request_finished.seconds
        )
        self._observe(("registry_http_response_size_bytes", handler), request_finished.sent)
        if request_finished.received is not None:
            self._observe(("registry_http_request_size_bytes", handler), request_finished.received)

    def call_ended(self, driver: str, action: str, seconds: float, failed: bool) -> None:  # noqa: FBT001
        """As promised by the interface."""
        action = _DISTRIBUTION_ACTIONS.get(action, action)
        self._observe(("registry_storage_action_seconds", driver, action), seconds)
        if failed:
            self._increment(("registry_storage_errors", driver, action), 1)

    def add(self, other: Counts, *, gone: bool = False) -> None:
        """Add the numbers of another process.

        :param gone: it has ended, so what told of its moment counts for nothing.
        """
        for key, number in other.numbers.items():
            if not (gone and METRIC_FAMILIES[key[0]].is_gauge):
                self._increment(key, number)
        for key, histogram in other.histograms.items():
            self._get_histogram(key).add(histogram)

    def to_bytes(self) -> bytes:
        """All numbers, for another process, on one line."""
        content = {
            "numbers": [[key, number] for key, number in self.numbers.items()],
            "histograms": [
                [key, histogram.buckets, histogram.total]
                for key, histogram in self.histograms.items()
            ],
        }
        return json.dumps(content, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> Counts:
        """The numbers that another process told, which runs the same program."""
        told = json.loads(content)
        return cls(
            {tuple(key): number for key, number in told["numbers"]},
            {tuple(key): Histogram(buckets, total) for key, buckets, total in told["histograms"]},
        )

    def _increment(self, key: SeriesKey, number: float) -> None:
        self.numbers[key] = self.numbers.get(key, 0) + number

    def _observe(self, key: SeriesKey, value: float) -> None:
        histogram = self.histograms.get(key) or self._get_histogram(key)
        histogram.buckets[bisect_left(METRIC_FAMILIES[key[0]].bounds, value)] += 1
        histogram.total += value

    def _get_histogram(self, key: SeriesKey) -> Histogram:
        found = self.histograms.get(key)
        if found is None:
            found = Histogram([0] * (len(METRIC_FAMILIES[key[0]].bounds) + 1))
            self.histograms[key] = found
        return found


_METHOD_LABELS = {name: name.lower() for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")}


def _method_label(name: str) -> str:
    # A client may send any word, and each would be a number of its own for ever.
    return _METHOD_LABELS.get(name, "other")


#: Seconds between two reports: so old may what is said of another process be.
REPORT_INTERVAL_S = 2.0


@implementer(ICountsReceiver)
@define(eq=False)
class AggregatedCounts:
    """What this process has counted, and what others have told.

    :ivar own: counted by this process.
    """

    own: Counts = field(factory=Counts)
    _by_pid: dict[int, Counts] = field(init=False, factory=dict)
    _ended: Counts = field(init=False, factory=Counts)

    def told(self, pid: int, report: bytes) -> None:
        """Another process told all that it has counted so far."""
        self._by_pid[pid] = Counts.from_bytes(report)

    def gone(self, pid: int) -> None:
        """Another process has ended."""
        last = self._by_pid.pop(pid, None)
        if last is not None:
            self._ended.add(last, gone=True)

    def total(self) -> Counts:
        """The sum over all processes."""
        total = Counts()
        for counts in (self.own, self._ended, *self._by_pid.values()):
            total.add(counts)
        return total


class CountsReporter(Service):
    """Tells the first process what this one has counted, while the service runs."""

    def __init__(self, counts: Counts, stream: TextIO, clock: IReactorTime) -> None:
        """Take what to tell, and the pipe."""
        self.setName("reporting")
        self._counts = counts
        self._stream = stream
        self._last_report = b""
        self._loop = LoopingCall(self._write_report)
        self._loop.clock = clock

    def startService(self) -> None:
        """Tell at intervals."""
        super().startService()
        self._loop.start(REPORT_INTERVAL_S, now=False)

    def stopService(self) -> None:
        """Tell once more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        self._write_report()

    def _write_report(self) -> None:
        content = self._counts.to_bytes()
        if content != self._last_report:
            self._last_report = content
            self._stream.write(f"{COUNTS_PREFIX.decode()}{content.decode('ascii')}\n")
            self._stream.flush()
