"""What one process counts for metrics, beside requests and storage calls.

Caches, thread pools, limits and health checks keep numbers of their own, which are read when the
counts are reported or scraped: a request pays nothing for them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from twisted_registry import __version__
from twisted_registry.api.routes import ALL_ENDPOINTS
from twisted_registry.health.registry import HealthRegistry
from twisted_registry.metrics.event_loop import EventLoopMonitor
from twisted_registry.repository.clock import monotonic_clock
from twisted_registry.storage.threads import enumerate_pools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.app.maintenance import MaintenanceService
    from twisted_registry.health.registry import FollowedHealth
    from twisted_registry.http.site import HTTPSite
    from twisted_registry.maintenance.watermark import Watermark
    from twisted_registry.metrics.counts import Counts, SeriesKey
    from twisted_registry.repository.registry import Registry

#: Keys below ``http.limits``, by the names of the limits in the HTTP engine.
_LIMIT_KEYS = {
    "url_bytes": "urlbytes",
    "header_bytes": "headerbytes",
    "header_seconds": "headertimeout",
    "body_seconds": "bodytimeout",
    "connections": "connections",
    "connections_per_address": "connectionsperaddress",
}
#: Further limits, by their names in ``RegistryError``.
_API_LIMITS = (
    *("requestsperaddress", "requestsperuser", "uploadsperuser", "logins"),
    *("blobbytes", "manifestbytes", "manifestdepth", "manifestvalues", "quotas", "storage"),
)


def connect_counts(
    counts: Counts,
    registry: Registry,
    site: HTTPSite,
    health: HealthRegistry | FollowedHealth,
    watermark: Watermark | None,
    maintenance: MaintenanceService | None,
    reactor: Any,
) -> EventLoopMonitor:
    """Let the counts of a process include what its parts count.

    :param health: the checks, in the process that runs them.
    :param watermark: measures the disk; None if it is not configured.
    :param maintenance: the tasks, in the process that runs them.
    :returns: a service that measures the event loop.
    """
    handlers = [endpoint.handler for endpoint in ALL_ENDPOINTS]
    counts.declare("registry_http_in_flight_requests", handlers)
    counts.declare("registry_limits_hit", (*_LIMIT_KEYS.values(), *_API_LIMITS))
    site.on_limit = lambda name: counts.limit_hit(_LIMIT_KEYS[name])

    def read() -> Mapping[SeriesKey, float]:
        values: dict[SeriesKey, float] = {
            ("registry_build_info", __version__): 1,
            ("registry_http_connections",): len(site.connections),
            ("registry_uploads_in_flight",): registry.active_uploads,
            **_cache_values(registry),
            **_pool_values(),
        }
        if watermark is not None and watermark.used is not None:
            values["registry_storage_used_ratio",] = watermark.used
        if maintenance is not None:
            for task, freed_bytes in maintenance.freed_bytes.items():
                values["registry_maintenance_freed_bytes", task] = freed_bytes
        if isinstance(health, HealthRegistry):
            for name, passes in health.passing().items():
                values["registry_health_check_up", name] = passes
        return values

    counts.sources.append(read)
    return EventLoopMonitor(monotonic_clock(reactor), counts.loop_delayed)


def _cache_values(registry: Registry) -> Mapping[SeriesKey, float]:
    values: dict[SeriesKey, float] = {}
    for name, use in registry.cache_uses.items():
        values["registry_cache_requests", name, "hit"] = use.hits
        values["registry_cache_requests", name, "miss"] = use.misses
    return values


def _pool_values() -> Mapping[SeriesKey, float]:
    values: Counter[SeriesKey] = Counter()
    for pool in enumerate_pools():
        values["registry_thread_pool_threads", pool.name] += pool.maximum
        values["registry_thread_pool_busy", pool.name] += pool.busy
        values["registry_thread_pool_queue", pool.name] += pool.queued
    return values
