"""Prometheus text format of the counts; needs the extra ``metrics``."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from attrs import define
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from twisted_registry.metrics.counts import METRIC_FAMILIES, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from twisted_registry.metrics.counts import Counts

#: Content-Type of :func:`render_metrics`.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render_metrics(
    counts: Counts,
    tasks: Sequence[Mapping[str, Any]],
    used_ratio: float | None = None,
    events: Mapping[str, tuple[int, int]] | None = None,
) -> bytes:
    """Render all metrics in the Prometheus text format.

    :param counts: the sum over all processes.
    :param tasks: the maintenance tasks, as
        :meth:`~twisted_registry.app.maintenance.MaintenanceService.status` returns them.
    :param used_ratio: the used part of the disk from 0 to 1; None if no watermark is configured.
    :param events: how many events wait, and how many were refused, by endpoint of notifications.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(counts, tasks, used_ratio, events or {}))
    return generate_latest(registry)


@define(eq=False)
class _Collector:
    counts: Counts
    tasks: Sequence[Mapping[str, Any]]
    used_ratio: float | None
    events: Mapping[str, tuple[int, int]]

    def collect(self) -> Iterable[Metric]:
        yield from self._collect_requests()
        yield from self._collect_maintenance()
        yield from self._collect_events()
        if self.used_ratio is not None:
            text = "Used part of the disk's blocks or inodes, the larger of both."
            yield GaugeMetricFamily("registry_storage_used_ratio", text, value=self.used_ratio)

    def _collect_requests(self) -> Iterable[Metric]:
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
