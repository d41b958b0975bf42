"""The metrics that processes count: names, labels, and how the values of processes are combined.

Those of maintenance and of the queue of notifications are read from the store at a scrape instead:
:mod:`twisted_registry.metrics.prometheus`.
"""

from __future__ import annotations

from operator import add
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
_DELAY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZE_BUCKETS_BYTES = tuple(1024.0 * 2**power for power in range(22))


@frozen
class MetricFamily:
    """A metric: the series that share a name.

    :ivar documentation: the HELP text.
    :ivar labels: the names of the labels.
    :ivar bounds: the upper bounds of a histogram's buckets; empty for a counter or gauge.
    :ivar is_gauge: whether the value describes the present, and ends with its process.
    :ivar combine: makes one value of those of two processes.
    """

    documentation: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    is_gauge: bool = False
    combine: Callable[[float, float], float] = add


#: By the names of CNCF Distribution 2.8.3, where it has the metric. Names of counters get the
#: suffix ``_total`` in the text format.
METRIC_FAMILIES: Mapping[str, MetricFamily] = {
    "registry_build_info": MetricFamily(
        "Always 1; the label is the version that runs.", ("version",), is_gauge=True, combine=max
    ),
    "registry_http_requests": MetricFamily("Requests.", ("handler", "method", "code")),
    "registry_http_request_duration_seconds": MetricFamily(
        "Time from the headers of a request to the end of its response.",
        ("handler", "method"),
        _DURATION_BUCKETS_S,
    ),
    "registry_http_request_size_bytes": MetricFamily(
        "Sizes of request bodies, as far as they were received.", ("handler",), _SIZE_BUCKETS_BYTES
    ),
    "registry_http_response_size_bytes": MetricFamily(
        "Sizes of response bodies.", ("handler",), _SIZE_BUCKETS_BYTES
    ),
    "registry_http_in_flight_requests": MetricFamily(
        "Requests in progress.", ("handler",), is_gauge=True
    ),
    "registry_http_connections": MetricFamily("Open connections of clients.", is_gauge=True),
    "registry_uploads_in_flight": MetricFamily(
        "Uploads of blobs whose bytes are being received.", is_gauge=True
    ),
    "registry_limits_hit": MetricFamily(
        "Requests and connections that were refused or closed because of a limit.", ("limit",)
    ),
    "registry_storage_action_seconds": MetricFamily(
        "Duration of storage calls.", ("driver", "action"), _DURATION_BUCKETS_S
    ),
    "registry_storage_errors": MetricFamily(
        "Storage calls that failed because of the store.", ("driver", "action")
    ),
    "registry_storage_used_ratio": MetricFamily(
        "Used part of the disk's blocks or inodes, the larger of both.",
        is_gauge=True,
        combine=max,
    ),
    "registry_storage_cache": MetricFamily(
        "Lookups in the cache of blob descriptors, as Distribution 2.8 names them.", ("type",)
    ),
    "registry_storage_cache_requests": MetricFamily(
        "Lookups in the cache of blob descriptors, as Distribution 3 names them."
    ),
    "registry_storage_cache_hits": MetricFamily("Of these, those that found the blob."),
    "registry_storage_cache_errors": MetricFamily("Of these, those that failed."),
    "registry_cache_requests": MetricFamily(
        "Lookups in a cache of this process.", ("cache", "result")
    ),
    "registry_repository_events": MetricFamily(
        "Pushes, pulls, mounts and deletes that succeeded.", ("repository", "action", "kind")
    ),
    "registry_repository_bytes": MetricFamily(
        "Sizes of the content of these, where they are known.", ("repository", "action")
    ),
    "registry_notifications_events": MetricFamily(
        "Events: all, and attempts to send one, by result.", ("type", "endpoint")
    ),
    "registry_notifications_status": MetricFamily(
        "Responses of endpoints of notifications.", ("code", "endpoint")
    ),
    "registry_maintenance_freed_bytes": MetricFamily(
        "Bytes that tasks of this registry have removed from the store.", ("task",)
    ),
    "registry_health_check_up": MetricFamily(
        "Whether a health check passes.", ("check",), is_gauge=True, combine=min
    ),
    "registry_event_loop_delay_seconds": MetricFamily(
        "How late the event loop of a process made a call that was due, measured every second.",
        (),
        _DELAY_BUCKETS_S,
    ),
    "registry_thread_pool_threads": MetricFamily(
        "Threads that a pool may have.", ("pool",), is_gauge=True
    ),
    "registry_thread_pool_busy": MetricFamily(
        "Threads of a pool that work.", ("pool",), is_gauge=True
    ),
    "registry_thread_pool_queue": MetricFamily(
        "Calls that wait for a thread of a pool.", ("pool",), is_gauge=True
    ),
    "process_cpu_seconds": MetricFamily("Processor time, of all processes."),
    "process_resident_memory_bytes": MetricFamily(
        "Resident memory, of all processes.", is_gauge=True
    ),
    "process_virtual_memory_bytes": MetricFamily(
        "Virtual memory, of all processes.", is_gauge=True
    ),
    "process_open_fds": MetricFamily(
        "Open descriptors, of the process that has most.", is_gauge=True, combine=max
    ),
    "process_max_fds": MetricFamily(
        "Descriptors that a process may have.", is_gauge=True, combine=min
    ),
    "process_start_time_seconds": MetricFamily(
        "Start of the first process, in seconds since 1970.", is_gauge=True, combine=min
    ),
}
