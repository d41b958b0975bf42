"""Counts of requests and storage calls, their sum over processes, and their Prometheus text."""

from __future__ import annotations

import io

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from twisted_registry.metrics.counts import (
    REPORT_INTERVAL_S,
    AggregatedCounts,
    Counts,
    CountsReporter,
)
from twisted_registry.metrics.interfaces import (
    FinishedRequest,
    ICountsReceiver,
    IMetricsObserver,
    INotificationsObserver,
)
from twisted_registry.metrics.prometheus import read_process, render_metrics
from twisted_registry.storage.interfaces import IStorageObserver
from twisted_registry.workers.logs import EventReceiver

#: One entry of ``MaintenanceService.status()``.
TASK = {
    "name": "gc",
    "enabled": True,
    "running": "host 1 it",
    "last": {"began": 1000.0, "seconds": 2.5, "failure": "it broke"},
    "next": 2000.0,
    "runs": 3,
    "failures": 1,
    "passed_over": 4,
}
IN_FLIGHT = ("registry_http_in_flight_requests", "blob")


def samples(counts, tasks=()):
    """Parse the Prometheus text; keys are the name and the label values, sorted by label."""
    text = render_metrics(counts, tasks).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def make_counts(**changed):
    """Count one request and one storage call."""
    counts = Counts()
    fields = {
        "handler": "blob",
        "method": "GET",
        "status": 200,
        "duration_s": 0.02,
        "sent_bytes": 3000,
    }
    counts.request_started("blob")
    counts.request_finished(FinishedRequest(**{**fields, **changed}))
    counts.call_ended("filesystem", "get", 0.3, False)
    return counts


def test_counts_provide_the_interfaces():
    verifyObject(IMetricsObserver, Counts())
    verifyObject(IStorageObserver, Counts())
    verifyObject(ICountsReceiver, AggregatedCounts())


def test_requests_and_storage_calls_become_samples():
    counts = make_counts()
    counts.call_ended("filesystem", "folders_many", 0.1, True)
    found = samples(counts)
    assert found["registry_http_requests_total", "200", "blob", "get"] == 1
    assert found[IN_FLIGHT] == 0
    duration = "registry_http_request_duration_seconds"
    assert found[f"{duration}_bucket", "blob", "0.01", "get"] == 0
    assert found[f"{duration}_bucket", "blob", "0.025", "get"] == 1
    assert found[f"{duration}_bucket", "blob", "+Inf", "get"] == 1
    assert found[f"{duration}_sum", "blob", "get"] == 0.02
    assert found[f"{duration}_count", "blob", "get"] == 1
    assert found["registry_http_response_size_bytes_bucket", "blob", "2048.0"] == 0
    assert found["registry_http_response_size_bytes_bucket", "blob", "4096.0"] == 1
    assert found["registry_http_request_size_bytes_sum", "blob"] == 0
    assert found["registry_storage_action_seconds_count", "GetContent", "filesystem"] == 1
    assert found["registry_storage_errors_total", "folders_many", "filesystem"] == 1


def test_a_started_request_is_in_flight():
    counts = make_counts()
    counts.request_started("blob")
    assert samples(counts)[IN_FLIGHT] == 1


def test_bytes_of_bodies_are_summed():
    found = samples(make_counts(received_bytes=70))
    assert found["registry_http_received_bytes_total", "blob"] == 70
    assert found["registry_http_sent_bytes_total", "blob"] == 3000


def test_declared_series_begin_at_zero():
    counts = make_counts()
    counts.request_started("blob")
    counts.declare("registry_http_in_flight_requests", ["blob", "tags"])
    found = samples(counts)
    assert found[IN_FLIGHT] == 1
    assert found["registry_http_in_flight_requests", "tags"] == 0


@pytest.mark.parametrize("method", ["BREW", "get", ""])
def test_unknown_methods_share_one_label(method):
    found = samples(make_counts(method=method))
    assert found["registry_http_requests_total", "200", "blob", "unknown"] == 1


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
def test_methods_that_distribution_counts_have_their_label(method):
    found = samples(make_counts(method=method))
    assert found["registry_http_requests_total", "200", "blob", method.lower()] == 1


def test_maintenance_tasks_become_samples():
    found = samples(Counts(), [TASK, {**TASK, "name": "idle", "last": None, "next": None}])
    assert found["registry_maintenance_runs_total", "success", "gc"] == 2
    assert found["registry_maintenance_runs_total", "failure", "gc"] == 1
    assert found["registry_maintenance_runs_total", "passed_over", "gc"] == 4
    assert found["registry_maintenance_last_run_timestamp_seconds", "gc"] == 1000
    assert found["registry_maintenance_last_run_duration_seconds", "gc"] == 2.5
    assert found["registry_maintenance_last_run_failed", "gc"] == 1
    assert found["registry_maintenance_next_run_timestamp_seconds", "gc"] == 2000
    assert found["registry_maintenance_running", "gc"] == 1
    assert ("registry_maintenance_last_run_timestamp_seconds", "idle") not in found


def test_limits_and_delays_become_samples():
    counts = Counts()
    counts.limit_hit("blobbytes")
    counts.limit_hit("blobbytes")
    counts.loop_delayed(0.003)
    found = samples(counts)
    assert found["registry_limits_hit_total", "blobbytes"] == 2
    assert found["registry_event_loop_delay_seconds_bucket", "0.0025"] == 0
    assert found["registry_event_loop_delay_seconds_bucket", "0.005"] == 1
    assert found["registry_event_loop_delay_seconds_count",] == 1


def test_the_process_is_measured():
    aggregated = AggregatedCounts()
    aggregated.own.sources.append(read_process)
    found = samples(aggregated.total())
    assert found["process_cpu_seconds_total",] > 0
    assert found["process_resident_memory_bytes",] > 0
    assert 0 < found["process_open_fds",] < found["process_max_fds",]
    assert found["process_start_time_seconds",] > 0


def test_values_of_several_processes_are_combined():
    aggregated = AggregatedCounts()
    own = {
        ("process_open_fds",): 10,
        ("process_start_time_seconds",): 1000,
        ("registry_build_info", "1"): 1,
        ("registry_thread_pool_queue", "storage"): 3,
        ("registry_health_check_up", "a"): 0,
    }
    worker = Counts({
        ("process_open_fds",): 7,
        ("process_start_time_seconds",): 2000,
        ("registry_build_info", "1"): 1,
        ("registry_thread_pool_queue", "storage"): 4,
    })  # fmt: skip
    aggregated.own.sources.append(lambda: own)
    aggregated.update(7, worker.to_bytes())
    assert aggregated.total().values == {
        **own,
        ("registry_thread_pool_queue", "storage"): 7,
    }
    aggregated.process_ended(7)
    assert aggregated.total().values == own


def test_a_report_has_the_values_of_sources():
    stream, counts = io.StringIO(), Counts()
    counts.sources.append(lambda: {("registry_http_connections",): 5})
    reporter = CountsReporter(counts, stream, Clock())
    reporter.startService()
    reporter.stopService()
    assert "registry_http_connections" in stream.getvalue()


def count_requests(counts):
    return samples(counts).get(("registry_http_requests_total", "200", "blob", "get"), 0)


def test_counts_of_several_processes_are_summed():
    aggregated = AggregatedCounts(make_counts())
    aggregated.update(7, make_counts().to_bytes())
    aggregated.update(8, make_counts().to_bytes())
    aggregated.update(8, make_counts().to_bytes())  # a report replaces the previous one
    found = samples(aggregated.total())
    assert count_requests(aggregated.total()) == 3
    assert found["registry_storage_action_seconds_sum", "GetContent", "filesystem"] == (
        pytest.approx(0.9)
    )


def test_counters_of_an_ended_process_are_kept_and_its_gauges_dropped():
    aggregated = AggregatedCounts()
    counts = make_counts()
    counts.request_started("blob")
    aggregated.update(7, counts.to_bytes())
    assert samples(aggregated.total())[IN_FLIGHT] == 1
    aggregated.process_ended(7)
    aggregated.process_ended(7)
    assert count_requests(aggregated.total()) == 1
    assert samples(aggregated.total()).get(IN_FLIGHT, 0) == 0


def test_a_reporter_writes_a_line_when_counts_have_changed():
    clock, stream, aggregated = Clock(), io.StringIO(), AggregatedCounts()
    counts = make_counts()
    reporter = CountsReporter(counts, stream, clock)
    reporter.startService()
    clock.advance(REPORT_INTERVAL_S)
    clock.advance(REPORT_INTERVAL_S)
    assert len(stream.getvalue().splitlines()) == 1, "the second report had nothing new"
    counts.request_started("blob")
    counts.request_finished(FinishedRequest("blob", "GET", 200, 0.1, 1))
    reporter.stopService()
    assert clock.getDelayedCalls() == []
    log_events = []
    receiver = EventReceiver(log_events.append, aggregated)
    receiver.pid = 7
    receiver.data_received(stream.getvalue().encode())
    assert log_events == []
    assert count_requests(aggregated.total()) == 2


def test_notifications_have_the_names_of_distribution():
    counts = Counts()
    verifyObject(INotificationsObserver, counts)
    counts.events_stored("hook", 3)
    counts.events_dropped("hook", 1)
    for status in (200, 200, 503, 599, 0):
        counts.attempt_ended("hook", status, status == 200)
    text = render_metrics(counts, [], {"hook": (2, 1)}).decode()
    found = {line for line in text.splitlines() if line.startswith("registry_notifications")}
    begin = "registry_notifications"
    assert found == {
        f'{begin}_events_total{{endpoint="hook",type="Events"}} 3.0',
        f'{begin}_events_total{{endpoint="hook",type="Dropped"}} 1.0',
        f'{begin}_events_total{{endpoint="hook",type="Successes"}} 2.0',
        f'{begin}_events_total{{endpoint="hook",type="Failures"}} 2.0',
        f'{begin}_events_total{{endpoint="hook",type="Errors"}} 1.0',
        f'{begin}_status_total{{code="200 OK",endpoint="hook"}} 2.0',
        f'{begin}_status_total{{code="503 Service Unavailable",endpoint="hook"}} 1.0',
        f'{begin}_status_total{{code="599",endpoint="hook"}} 1.0',
        f'{begin}_pending_total{{endpoint="hook"}} 2.0',
        f'{begin}_refused{{endpoint="hook"}} 1.0',
    }
