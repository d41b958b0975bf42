"""What is counted, added up over processes, and told to Prometheus."""

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
from twisted_registry.metrics.interfaces import FinishedRequest, IMetricsObserver
from twisted_registry.metrics.prometheus import render_metrics
from twisted_registry.storage.interfaces import IStorageObserver
from twisted_registry.workers.logs import COUNTS_PREFIX, EventReceiver, ICountsReceiver

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


def samples(counts, tasks=()):
    """What Prometheus reads: the value of each name with its labels, in the order of theirs."""
    text = render_metrics(counts, tasks).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(**changed):
    """The numbers after one request, and one call to the store."""
    counts = Counts()
    given = {"handler": "blob", "method": "GET", "status": 200, "seconds": 0.02, "sent": 3000}
    counts.request_started("blob")
    counts.request_finished(FinishedRequest(**{**given, **changed}))
    counts.call_ended("filesystem", "get", 0.3, False)
    return counts


def test_the_interfaces():
    verifyObject(IMetricsObserver, Counts())
    verifyObject(IStorageObserver, Counts())
    verifyObject(ICountsReceiver, AggregatedCounts())


def test_a_request_and_a_call_to_the_store():
    counts = counted()
    counts.call_ended("filesystem", "folders_many", 0.1, True)
    found = samples(counts)
    assert found["registry_http_requests_total", "200", "blob", "get"] == 1
    assert found["registry_http_in_flight_requests", "blob"] == 0
    seconds = "registry_http_request_duration_seconds"
    assert found[f"{seconds}_bucket", "blob", "0.01", "get"] == 0
    assert found[f"{seconds}_bucket", "blob", "0.025", "get"] == 1
    assert found[f"{seconds}_bucket", "blob", "+Inf", "get"] == 1
    assert found[f"{seconds}_sum", "blob", "get"] == 0.02
    assert found[f"{seconds}_count", "blob", "get"] == 1
    assert found["registry_http_response_size_bytes_bucket", "blob", "2048.0"] == 0
    assert found["registry_http_response_size_bytes_bucket", "blob", "4096.0"] == 1
    assert found["registry_http_request_size_bytes_sum", "blob"] == 0
    assert found["registry_storage_action_seconds_count", "GetContent", "filesystem"] == 1
    assert found["registry_storage_errors_total", "folders_many", "filesystem"] == 1


def test_what_is_under_way():
    counts = counted()
    counts.request_started("blob")
    assert samples(counts)["registry_http_in_flight_requests", "blob"] == 1


def test_a_body_of_unknown_length_is_not_measured():
    names = {name for name, *_ in samples(counted(received=None))}
    assert "registry_http_request_size_bytes_count" not in names


@pytest.mark.parametrize("method", ["BREW", "get", ""])
def test_made_up_methods_are_one(method):
    assert samples(counted(method=method))["registry_http_requests_total", "200", "blob", "other"]


def test_the_tasks():
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


def test_how_full_the_disk_is():
    assert (
        "registry_storage_used_ratio 0.25"
        in render_metrics(Counts(), [], 0.25).decode().splitlines()
    )
    assert b"registry_storage_used_ratio" not in render_metrics(Counts(), [])


def requests(counts):
    return samples(counts).get(("registry_http_requests_total", "200", "blob", "get"), 0)


def test_several_processes_are_added_up():
    gathered = AggregatedCounts(counted())
    gathered.told(7, counted().to_bytes())
    gathered.told(8, counted().to_bytes())
    gathered.told(8, counted().to_bytes())  # all that it counted so far, not what is new
    found = samples(gathered.total())
    assert requests(gathered.total()) == 3
    assert found["registry_storage_action_seconds_sum", "GetContent", "filesystem"] == (
        pytest.approx(0.9)
    )


def test_what_a_process_counted_outlives_it_but_not_what_it_was_doing():
    gathered = AggregatedCounts()
    counts = counted()
    counts.request_started("blob")
    gathered.told(7, counts.to_bytes())
    assert samples(gathered.total())["registry_http_in_flight_requests", "blob"] == 1
    gathered.gone(7)
    gathered.gone(7)
    assert requests(gathered.total()) == 1
    assert samples(gathered.total()).get(("registry_http_in_flight_requests", "blob"), 0) == 0


def test_a_worker_tells_the_first_process():
    clock, stream, gathered = Clock(), io.StringIO(), AggregatedCounts()
    counts = counted()
    reporting = CountsReporter(counts, stream, clock)
    reporting.startService()
    clock.advance(REPORT_INTERVAL_S)
    clock.advance(REPORT_INTERVAL_S)
    assert stream.getvalue().count(COUNTS_PREFIX.decode()) == 1, "nothing new was told"
    counts.request_started("blob")
    counts.request_finished(FinishedRequest("blob", "GET", 200, 0.1, 1))
    reporting.stopService()
    assert clock.getDelayedCalls() == []
    logged = []
    reports = EventReceiver(logged.append, gathered)
    reports.pid = 7
    reports.received(stream.getvalue().encode())
    assert logged == []
    assert requests(gathered.total()) == 2
