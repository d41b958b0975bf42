"""What a registry does now, from two readings of its metrics; needs the extra ``metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    #: Values by the name of the sample and the values of its labels, in the order of their names.
    Samples = Mapping[tuple[str, ...], float]

_REQUESTS = "registry_http_requests_total"
_DURATION = "registry_http_request_duration_seconds"


@frozen
class SlowRequests:
    """Requests of one kind.

    :ivar handler: the endpoint, as in the metrics.
    :ivar seconds: the mean time to answer one.
    """

    handler: str
    method: str
    count: int
    seconds: float


@frozen
class Activity:
    """What happened between two readings.

    :ivar seconds: the time between them.
    :ivar requests: answered, per second.
    :ivar errors: those of them with a status of 500 or above.
    :ivar received_bytes: of request bodies, per second.
    :ivar sent_bytes: of response bodies, per second.
    :ivar in_flight: requests in progress at the second reading.
    :ivar uploads: uploads whose bytes are being received at the second reading.
    :ivar slowest: kinds of requests, the slowest first.
    """

    seconds: float
    requests: float
    errors: float
    received_bytes: float
    sent_bytes: float
    in_flight: int
    uploads: int
    slowest: tuple[SlowRequests, ...]


def parse_samples(text: str) -> Samples:
    """Parse metrics in the Prometheus text format.

    :raises ValueError: if it is not in that format.
    """
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def compare(before: Samples, after: Samples, seconds: float) -> Activity:
    """Return what happened between two readings.

    :param seconds: the time between them, more than 0.
    """
    # The labels of requests are code, handler and method.
    requests = dict(_increases(before, after, _REQUESTS))
    errors = sum(value for (code, *_), value in requests.items() if code >= "5")
    counts = dict(_increases(before, after, f"{_DURATION}_count"))
    slowest = [
        SlowRequests(handler, method, round(count), total / count)
        for (handler, method), total in _increases(before, after, f"{_DURATION}_sum")
        if (count := counts.get((handler, method)))
    ]
    return Activity(
        seconds,
        sum(requests.values()) / seconds,
        errors / seconds,
        sum(value for _, value in _increases(before, after, "registry_http_received_bytes_total"))
        / seconds,
        sum(value for _, value in _increases(before, after, "registry_http_sent_bytes_total"))
        / seconds,
        round(_sum(after, "registry_http_in_flight_requests")),
        round(_sum(after, "registry_uploads_in_flight")),
        tuple(sorted(slowest, key=lambda each: each.seconds, reverse=True)),
    )


def _sum(samples: Samples, name: str) -> float:
    return sum(value for key, value in samples.items() if key[0] == name)


def _increases(
    before: Samples, after: Samples, name: str
) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the increase of each counter of a name; from 0 if it restarted with its process."""
    for key, value in after.items():
        if key[0] == name:
            earlier = before.get(key, 0.0)
            yield key[1:], value - earlier if value >= earlier else value
