"""Prometheus text format of the counts; needs the extra ``metrics``."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from attrs import define
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from twisted_registry.metrics.families import METRIC_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from twisted_registry.metrics.counts import Counts, Histogram, SeriesKey

#: Content-Type of :func:`render_metrics`.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


#: Reads /proc; on other systems it finds nothing.
_PROCESS = ProcessCollector(registry=None)
#: Totals of histograms that have a name of their own, since they answer a usual question.
_TOTALS = (
    (
        "registry_http_received_bytes",
        "Bytes of request bodies that were received.",
        "registry_http_request_size_bytes",
    ),
    (
        "registry_http_sent_bytes",
        "Bytes of response bodies.",
        "registry_http_response_size_bytes",
    ),
)


def read_process() -> Mapping[SeriesKey, float]:
    """Return processor time, memory and descriptors of this process."""
    return {
        (family.name,): sample.value
        for family in _PROCESS.collect()
        if family.name in METRIC_FAMILIES
        for sample in family.samples
    }


def render_metrics(
    counts: Counts,
    tasks: Sequence[Mapping[str, Any]],
    events: Mapping[str, tuple[int, int]] | None = None,
) -> bytes:
    """Render all metrics in the Prometheus text format.

    :param counts: the sum over all processes.
    :param tasks: the maintenance tasks, as
        :meth:`~twisted_registry.app.maintenance.MaintenanceService.status` returns them.
    :param events: how many events wait, and how many were refused, by endpoint of notifications.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(counts, tasks, events or {}))
    return generate_latest(registry)


@define(eq=False)
class _Collector:
    counts: Counts
    tasks: Sequence[Mapping[str, Any]]
    events: Mapping[str, tuple[int, int]]

    def collect(self) -> Iterable[Metric]:
        yield from self._collect_counts()
        yield from self._collect_totals()
        yield from self._collect_maintenance()
        yield from self._collect_events()

    def _collect_counts(self) -> Iterable[Metric]:
        for name, family in METRIC_FAMILIES.items():
            if family.bounds:
                metric: Any = HistogramMetricFamily(
                    name, family.documentation, labels=family.labels
                )
                for key, histogram in self.counts.histograms.items():
                    if key[0] == name:
                        buckets = _cumulative_buckets(family.bounds, histogram)
                        metric.add_metric(key[1:], buckets, histogram.total)
            else:
                kind: Any = GaugeMetricFamily if family.is_gauge else CounterMetricFamily
                metric = kind(name, family.documentation, labels=family.labels)
                for key, value in self.counts.values.items():
                    if key[0] == name:
                        metric.add_metric(key[1:], value)
            yield metric

    def _collect_totals(self) -> Iterable[Metric]:
        for name, text, histograms in _TOTALS:
            metric = CounterMetricFamily(name, text, labels=("handler",))
            for key, histogram in self.counts.histograms.items():
                if key[0] == histograms:
                    metric.add_metric(key[1:], histogram.total)
            yield metric

    def _collect_events(self) -> Iterable[Metric]:
        # The name is that of Distribution, where this gauge ends like a counter.
        waiting = GaugeMetricFamily(
            "registry_notifications_pending_total", "Events that wait.", labels=("endpoint",)
        )
        refused = GaugeMetricFamily(
            "registry_notifications_refused",
            "Events that were refused for good, and are kept.",
            labels=("endpoint",),
        )
        for endpoint, (waiting_count, refused_count) in self.events.items():
            waiting.add_metric((endpoint,), waiting_count)
            refused.add_metric((endpoint,), refused_count)
        yield from (waiting, refused)

    def _collect_maintenance(self) -> Iterable[Metric]:
        labels = ("task",)
        runs = CounterMetricFamily(
            "registry_maintenance_runs", "Finished runs.", labels=("task", "result")
        )
        began = GaugeMetricFamily(
            "registry_maintenance_last_run_timestamp_seconds",
            "Start of the run that ended last, on any machine.",
            labels=labels,
        )
        took = GaugeMetricFamily(
            "registry_maintenance_last_run_duration_seconds", "Duration of that run.", labels=labels
        )
        failed = GaugeMetricFamily(
            "registry_maintenance_last_run_failed", "Whether that run failed.", labels=labels
        )
        due = GaugeMetricFamily(
            "registry_maintenance_next_run_timestamp_seconds",
            "When this process next checks whether a run is due.",
            labels=labels,
        )
        running = GaugeMetricFamily(
            "registry_maintenance_running",
            "Whether a run is in progress on any machine.",
            labels=labels,
        )
        for task in self.tasks:
            name, last = task["name"], task["last"]
            runs.add_metric((name, "success"), task["runs"] - task["failures"])
            runs.add_metric((name, "failure"), task["failures"])
            runs.add_metric((name, "passed_over"), task["passed_over"])
            running.add_metric((name,), float(task["running"] is not None))
            if task["next"] is not None:
                due.add_metric((name,), task["next"])
            if last is not None:
                began.add_metric((name,), last["began"])
                took.add_metric((name,), last["seconds"])
                failed.add_metric((name,), float(bool(last["failure"])))
        yield from (runs, began, took, failed, due, running)


def _cumulative_buckets(bounds: Sequence[float], histogram: Histogram) -> list[tuple[str, float]]:
    names = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(names, accumulate(histogram.buckets), strict=True))
