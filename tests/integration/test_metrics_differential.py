"""The metrics of one session, as this registry and as Distribution 2.8.3 expose them.

All samples that Distribution exposes are exposed here as well, with the same names, labels and
values: counters, gauges, and the counts of histograms, whose sums are times and sizes. So are the
variables of notifications, which Distribution 2.8.3 has in ``/debug/vars`` only. What differs on
purpose is listed here, and in ``docs/metrics.rst``.
"""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.remote import Remote, with_digest
from tests.integration.servers import DISTRIBUTION, HERE, OURS
from tests.support.manifests import OCI_IMAGE, digest_of, image
from tests.support.processes import free_port, wait_until
from tests.support.receiver import Receiver

pytestmark = pytest.mark.integration

MORE = """\
  debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}
notifications:
  endpoints:
  - name: hook
    url: {url}
    timeout: 5s
    headers: {{X-Token: [a]}}
    ignore: {{mediatypes: [text/plain], actions: [pull]}}
"""
CONFIG, LAYER = b"{}", b"a layer of forty-five bytes, more or less ..."

#: Metrics that only Distribution has. They describe Go, its HTTP handler for metrics, and the
#: network of the whole machine.
ABSENT = (
    *("go_", "promhttp_", "process_network_"),
    "process_virtual_memory_max_bytes",
)
#: Metrics whose values depend on the process, and on how often a registry asks its store.
OTHER_VALUES = ("process_", "registry_storage_action_seconds")
#: Responses with another status, by handler, method and status of this registry.
OTHER_STATUSES = {("base", "options", "204"): "200"}
#: Variables of an endpoint that only this registry has, and one with secrets, which it masks.
OWN_COUNTS, SECRETS = {"Refused", "Dropped"}, "Headers"
#: Handlers that Distribution does not have, or does not count.
OWN_HANDLERS = {"extensions", "referrers", "repository", "unknown"}


def play(remote):
    """Send the requests of the session."""

    def ask(method, path, body=None, **headers):
        return remote.request(method, path, body, headers)

    def push(name, content, pieces):
        location = ask("POST", f"/v2/{name}/blobs/uploads/").headers["location"]
        for piece in pieces:
            location = ask("PATCH", location, piece).headers["location"]
        rest = content[sum(map(len, pieces)) :]
        ask("PUT", with_digest(location, digest_of(content)), rest)

    ask("GET", "/v2/")
    ask("OPTIONS", "/v2/")
    ask("GET", "/v2/_catalog")
    ask("GET", "/v2/a/tags/list")
    for content, pieces in ((CONFIG, []), (LAYER, [LAYER[:10], LAYER[10:]])):
        ask("HEAD", f"/v2/a/blobs/{digest_of(content)}")
        push("a", content, pieces)
        ask("HEAD", f"/v2/a/blobs/{digest_of(content)}")
    # As docker sends it: without a length.
    location = ask("POST", "/v2/a/blobs/uploads/").headers["location"]
    location = ask("PATCH", location, iter([b"chunk", b"ed"])).headers["location"]
    ask("PUT", with_digest(location, digest_of(b"chunked")))
    location = ask("POST", "/v2/a/blobs/uploads/").headers["location"]
    ask("GET", location)
    ask("DELETE", location)
    ask("GET", location)
    location = ask("POST", "/v2/a/blobs/uploads/").headers["location"]
    ask("PUT", with_digest(location, digest_of(b"other")), b"wrong")
    ask("POST", f"/v2/b/blobs/uploads/?mount={digest_of(LAYER)}&from=a")
    manifest, kind = image(CONFIG, LAYER), {"Content-Type": OCI_IMAGE}
    digest = digest_of(manifest)
    ask("PUT", "/v2/a/manifests/1", b"not a manifest", **kind)
    ask("PUT", "/v2/a/manifests/1", manifest, **kind)
    ask("PUT", f"/v2/a/manifests/{digest}", manifest, **kind)
    for reference in ("1", digest, "2", digest_of(b"x")):
        ask("HEAD", f"/v2/a/manifests/{reference}", Accept=OCI_IMAGE)
        ask("GET", f"/v2/a/manifests/{reference}", Accept=OCI_IMAGE)
    ask("GET", "/v2/a/tags/list")
    ask("GET", "/v2/_catalog?n=1")
    for blob in (CONFIG, LAYER, b"missing"):
        ask("GET", f"/v2/a/blobs/{digest_of(blob)}")
    ask("GET", f"/v2/a/blobs/{digest_of(LAYER)}", Range="bytes=3-6")
    ask("POST", "/v2/a/tags/list")
    ask("DELETE", f"/v2/a/manifests/{digest}")
    ask("DELETE", f"/v2/a/manifests/{digest}")
    ask("DELETE", f"/v2/a/blobs/{digest_of(LAYER)}")


def scrape(debug):
    """Return the samples of a registry: name and labels, and value."""
    text = debug.request("GET", "/metrics").body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_sum", "_bucket"))
    }


def with_status_of_distribution(key):
    """Return the key of a sample, with the status that Distribution has for such a response."""
    name, labels = key[0], dict(key[1])
    response = labels.get("handler"), labels.get("method"), labels.get("code")
    labels.update({"code": OTHER_STATUSES[response]} if response in OTHER_STATUSES else {})
    return name, frozenset(labels.items())


def read_endpoint(debug):
    """Return the variables of the endpoint of notifications, once no event waits."""

    def read():
        content = debug.request("GET", "/debug/vars").json()
        (endpoint,) = content["registry"]["notifications"]["endpoints"]
        return endpoint if not endpoint["Metrics"]["Pending"] else None

    endpoint = wait_until(read)
    for name in OWN_COUNTS:
        endpoint["Metrics"].pop(name, None)
    assert endpoint.pop(SECRETS)
    return endpoint


def names_in(samples):
    return {name for name, _ in samples}


def test_metrics_of_a_session_match_distribution(launcher, tmp_path):
    receiver, scraped, endpoints = Receiver().start(), [], []
    for kind in (OURS, DISTRIBUTION):
        debug = f"{HERE}:{free_port()}"
        more = MORE.format(debug=debug, url=receiver.url)
        served = launcher.start(kind, tmp_path / kind, more=more)
        play(served.remote)
        endpoints.append(read_endpoint(Remote(debug)))
        scraped.append(scrape(Remote(debug)))
    receiver.stop()
    assert endpoints[0] == endpoints[1]
    assert endpoints[0]["Metrics"]["Successes"] > 0
    ours, theirs = scraped
    theirs = {key: value for key, value in theirs.items() if not key[0].startswith(ABSENT)}
    assert names_in(theirs) - names_in(ours) == set()

    theirs = {key: value for key, value in theirs.items() if not key[0].startswith(OTHER_VALUES)}
    common = {
        with_status_of_distribution(key): value
        for key, value in ours.items()
        if key[0] in names_in(theirs) and dict(key[1])["handler"] not in OWN_HANDLERS
    }
    assert common == theirs
    assert names_in(theirs) == {
        *("registry_http_requests_total", "registry_http_in_flight_requests"),
        *(
            f"registry_http_{name}_count"
            for name in ("request_duration_seconds", "request_size_bytes", "response_size_bytes")
        ),
    }
