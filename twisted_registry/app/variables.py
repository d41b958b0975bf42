"""The part of ``/debug/vars`` below ``registry`` that Distribution has as well, by its names.

``proxy`` is missing, because there is none. Secrets are masked, which Distribution shows.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import define

from twisted_registry.config.notifications import (
    DEFAULT_BACKOFF_S,
    DEFAULT_THRESHOLD,
    DEFAULT_TIMEOUT_S,
    Endpoint,
)
from twisted_registry.config.sections import Section
from twisted_registry.config.storage import Redis
from twisted_registry.repository.cache import NullDescriptorCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from twisted_registry.config.schema import Configuration
    from twisted_registry.metrics.counts import AggregatedCounts, Counts, SeriesKey
    from twisted_registry.repository.cache import IDescriptorCache

    EventCounter = Callable[[], Awaitable[Mapping[str, tuple[int, int]]]]

_CACHE = "registry_storage_cache"
_CACHE_USES = (("Requests", "Request"), ("Hits", "Hit"), ("Misses", "Miss"))
_EVENTS = "registry_notifications_events"
_STATUSES = "registry_notifications_status"
_NS_PER_S = 1_000_000_000


def descriptor_values(descriptors: IDescriptorCache) -> Mapping[SeriesKey, float]:
    """Return the series of the cache of blob descriptors of this process, if it has one.

    Distribution 2.8 has one metric with a label, Distribution 3 three metrics.
    """
    if isinstance(descriptors, NullDescriptorCache):
        return {}
    use = descriptors.use
    total = use.hits + use.misses
    return {
        (_CACHE, "Request"): total,
        (_CACHE, "Hit"): use.hits,
        (_CACHE, "Miss"): use.misses,
        (f"{_CACHE}_requests",): total,
        (f"{_CACHE}_hits",): use.hits,
        (f"{_CACHE}_errors",): use.errors,
    }


async def no_events() -> Mapping[str, tuple[int, int]]:
    """Return that no endpoint has events; for a registry without notifications."""
    return {}


@define(eq=False)
class RegistryVariables:
    """Reads the variables. The counts of this process include those of its cache from then on.

    :ivar configuration: returns the configuration in use.
    :ivar counts: of all processes.
    :ivar descriptors: the cache of this process.
    :ivar count_events: returns how many events wait, and how many were refused, by endpoint.
    """

    configuration: Callable[[], Configuration]
    counts: AggregatedCounts
    descriptors: IDescriptorCache
    count_events: EventCounter

    def __attrs_post_init__(self) -> None:
        self.counts.own.sources.append(lambda: descriptor_values(self.descriptors))

    async def read(self) -> dict[str, Any]:
        """Return the variables, ready for JSON."""
        counts = self.counts.total()
        configuration = self.configuration()
        redis = configuration.redis
        found: dict[str, Any] = {}
        if (_CACHE, "Request") in counts.values:
            uses = {name: counts.values[_CACHE, kind] for name, kind in _CACHE_USES}
            found["cache"] = {"storage": {"blobdescriptor": uses}}
        if redis is not None:
            # Only the cache in Redis has connections.
            connected = getattr(self.descriptors, "connected", int)
            found["redis"] = {"Config": Section(Redis).dump(redis), "Active": int(connected())}
        events = await self.count_events()
        found["notifications"] = {
            "endpoints": [
                _describe_endpoint(endpoint, counts, *events.get(endpoint.name, (0, 0)))
                for endpoint in configuration.notifications.enabled_endpoints
            ]
        }
        return found


def _describe_endpoint(
    endpoint: Endpoint, counts: Counts, waiting: int, refused: int
) -> dict[str, Any]:
    masked = Section(Endpoint).dump(endpoint)
    events: Counter[str] = Counter()
    statuses = {}
    for (family, *labels), value in counts.values.items():
        if family == _EVENTS and labels[1] == endpoint.name:
            events[labels[0]] = int(value)
        elif family == _STATUSES and labels[1] == endpoint.name:
            statuses[labels[0]] = value
    return {
        "name": endpoint.name,
        "url": masked["url"],
        "Headers": masked.get("headers"),
        "Timeout": round((endpoint.timeout or DEFAULT_TIMEOUT_S) * _NS_PER_S),
        "Threshold": endpoint.threshold or DEFAULT_THRESHOLD,
        "Backoff": round((endpoint.backoff or DEFAULT_BACKOFF_S) * _NS_PER_S),
        "IgnoredMediaTypes": list(endpoint.ignoredmediatypes) or None,
        "Ignore": {
            "MediaTypes": list(endpoint.ignore.mediatypes) or None,
            "Actions": list(endpoint.ignore.actions) or None,
        },
        "Metrics": {
            "Pending": waiting,
            "Refused": refused,
            **{
                kind: events[kind]
                for kind in ("Events", "Successes", "Failures", "Errors", "Dropped")
            },
            "Statuses": statuses,
        },
    }
