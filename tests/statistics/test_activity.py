"""What a registry does, from two readings of its metrics."""

from __future__ import annotations

import pytest

from twisted_registry.statistics.activity import SlowRequests, compare, parse_samples

BEFORE = """\
# TYPE registry_http_requests_total counter
registry_http_requests_total{handler="blob",method="get",code="200"} 100
registry_http_requests_total{handler="manifest",method="put",code="201"} 50
# TYPE registry_http_request_duration_seconds histogram
registry_http_request_duration_seconds_bucket{handler="blob",method="get",le="+Inf"} 100
registry_http_request_duration_seconds_count{handler="blob",method="get"} 100
registry_http_request_duration_seconds_sum{handler="blob",method="get"} 10
# TYPE registry_http_sent_bytes_total counter
registry_http_sent_bytes_total{handler="blob"} 1000
"""
AFTER = """\
# TYPE registry_http_requests_total counter
registry_http_requests_total{handler="blob",method="get",code="200"} 110
registry_http_requests_total{handler="blob",method="get",code="500"} 4
registry_http_requests_total{handler="manifest",method="put",code="201"} 6
# TYPE registry_http_request_duration_seconds histogram
registry_http_request_duration_seconds_bucket{handler="blob",method="get",le="+Inf"} 114
registry_http_request_duration_seconds_count{handler="blob",method="get"} 114
registry_http_request_duration_seconds_sum{handler="blob",method="get"} 17
registry_http_request_duration_seconds_count{handler="base",method="get"} 0
registry_http_request_duration_seconds_sum{handler="base",method="get"} 0
registry_http_request_duration_seconds_count{handler="tags",method="get"} 2
registry_http_request_duration_seconds_sum{handler="tags",method="get"} 4
# TYPE registry_http_received_bytes_total counter
registry_http_received_bytes_total{handler="blob_upload"} 300
# TYPE registry_http_sent_bytes_total counter
registry_http_sent_bytes_total{handler="blob"} 2000
# TYPE registry_http_in_flight_requests gauge
registry_http_in_flight_requests{handler="blob"} 2
registry_http_in_flight_requests{handler="tags"} 1
# TYPE registry_uploads_in_flight gauge
registry_uploads_in_flight 3
"""


def test_rates_are_of_the_time_between_two_readings():
    found = compare(parse_samples(BEFORE), parse_samples(AFTER), 2.0)
    # The counter of manifests has restarted with its process.
    assert (found.seconds, found.requests, found.errors) == (2.0, 10.0, 2.0)
    assert (found.received_bytes, found.sent_bytes) == (150.0, 500.0)
    assert (found.in_flight, found.uploads) == (3, 3)
    assert found.slowest == (
        SlowRequests("tags", "get", 2, 2.0),
        SlowRequests("blob", "get", 14, 0.5),
    )


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="html"):
        parse_samples("<html> lang\n")
