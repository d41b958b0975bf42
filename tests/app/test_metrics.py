"""What a registry in a process of its own shows of its parts to Prometheus."""

from __future__ import annotations

import re
import signal
from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.passwords import basic_header, password_lines
from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    wait_until,
    write_configuration,
)

DEBUG = "  debug: {{{{addr: '127.0.0.1:0', prometheus: {{{{enabled: true{more}}}}}}}}}\n"
MANIFEST = b'{"schemaVersion": 2, "manifests": []}'
INDEX = {"Content-Type": "application/vnd.oci.image.index.v1+json"}


class Scraped:
    """The metrics of a registry.

    :ivar server: its process.
    """

    def __init__(self, server):
        self.server = server
        pattern = r"maintenance: http://127\.0\.0\.1:(\d+)"
        (self.port,) = {
            int(found[1]) for line in server.lines if (found := re.search(pattern, line))
        }

    def request(self, method, path):
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()

    def value(self, name, **labels):
        """Return the value of a sample; None if there is none."""
        for family in text_string_to_metric_families(self.request("GET", "/metrics")[1].decode()):
            for sample in family.samples:
                if (sample.name, sample.labels) == (name, labels):
                    return sample.value
        return None


@pytest.fixture
def scraped(tmp_path):
    """Return a function that starts a registry.

    It takes further lines of ``http`` and sections, and further keys of ``prometheus``.
    """
    servers = []

    def start(more="", text=CONFIGURATION, prometheus=""):
        path = write_configuration(tmp_path, text + DEBUG.format(more=prometheus) + more)
        server = RegistryProcess(*SERVE, path, cwd=tmp_path)
        servers.append(server)
        return Scraped(server.__enter__())

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def push_blob(server, content):
    digest = f"sha256:{sha256(content).hexdigest()}"
    path = f"/v2/a/blobs/uploads/?digest={digest}"
    status = server.ask("POST", path, content)[0].status
    return status, digest


def test_pulls_are_hits_and_misses_of_caches(scraped):
    metrics = scraped()
    server = metrics.server
    assert server.ask("PUT", "/v2/a/manifests/1", MANIFEST, INDEX)[0].status == 201
    _, digest = push_blob(server, b"blob")
    for _ in range(3):
        wait_until(lambda: server.ask("GET", "/v2/a/manifests/1")[0].status == 200)
        assert server.ask("GET", f"/v2/a/blobs/{digest}")[0].status == 200
    requests = "registry_cache_requests_total"
    for cache in ("manifests", "blobs"):
        hits, misses = (
            metrics.value(requests, cache=cache, result=result) for result in ("hit", "miss")
        )
        assert hits + misses == 3
        assert misses >= 1


def test_a_descriptor_cache_has_the_names_of_distribution(scraped):
    text = CONFIGURATION.replace("storage:\n", "storage:\n  cache: {{blobdescriptor: inmemory}}\n")
    metrics = scraped(text=text)
    for kind in ("Request", "Hit", "Miss"):
        assert metrics.value("registry_storage_cache_total", type=kind) == 0
    for name in ("requests", "hits", "errors"):
        assert metrics.value(f"registry_storage_cache_{name}_total") == 0


def test_uploads_and_connections_are_counted_while_they_last(scraped):
    metrics = scraped()
    with closing(metrics.server.connection()) as connection:
        connection.putrequest("POST", f"/v2/a/blobs/uploads/?digest=sha256:{'0' * 64}")
        connection.putheader("Content-Length", "10")
        connection.endheaders(b"12345")
        wait_until(lambda: metrics.value("registry_uploads_in_flight") == 1)
        assert metrics.value("registry_http_connections") == 1
        assert metrics.value("registry_http_in_flight_requests", handler="blob_upload") == 1
    wait_until(lambda: metrics.value("registry_uploads_in_flight") == 0)
    wait_until(lambda: metrics.value("registry_http_received_bytes_total", handler="blob_upload"))
    assert metrics.value("registry_http_received_bytes_total", handler="blob_upload") == 5


def test_limits_are_counted_by_their_keys(scraped):
    limits = "{{blobbytes: 3, manifestbytes: 4MiB, manifestdepth: 8, urlbytes: 1024}}"
    metrics = scraped(f"  limits: {limits}\n")
    server = metrics.server

    def hits(limit):
        return metrics.value("registry_limits_hit_total", limit=limit)

    assert push_blob(server, b"four")[0] == 413
    nested = b'{"a":' * 20 + b"1" + b"}" * 20
    assert server.ask("PUT", "/v2/a/manifests/1", nested, INDEX)[0].status == 400
    assert server.ask("PUT", "/v2/a/manifests/1", b" " * 2**22 + b"x", INDEX)[0].status == 413
    assert server.ask("GET", "/v2/" + "a" * 2000)[0].status == 414
    assert {name: hits(name) for name in ("blobbytes", "manifestdepth", "manifestbytes")} == {
        "blobbytes": 1,
        "manifestdepth": 1,
        "manifestbytes": 1,
    }
    assert (hits("urlbytes"), hits("connections")) == (1, 0)


def test_refused_requests_of_an_address_are_counted(scraped):
    metrics = scraped("  limits: {{requestsperaddress: 0.01}}\n")
    assert [metrics.server.ask("GET", "/v2/")[0].status for _ in range(2)] == [200, 429]
    assert metrics.value("registry_limits_hit_total", limit="requestsperaddress") == 1


def test_repositories_have_counters_if_that_is_configured(scraped):
    metrics = scraped(prometheus=", repositories: 5")
    assert push_blob(metrics.server, b"blob")[0] == 201
    labels = {"repository": "a", "action": "push"}
    assert metrics.value("registry_repository_events_total", kind="blob", **labels) == 1
    assert metrics.value("registry_repository_bytes_total", **labels) == 4


def test_health_checks_are_shown(scraped):
    metrics = scraped("health: {{storagedriver: {{enabled: true}}}}\n")
    name = "registry_health_check_up"
    wait_until(lambda: metrics.value(name, check="storagedriver_filesystem") == 1)
    assert metrics.value(name, check="manual_http_status") == 1
    assert metrics.request("POST", "/debug/health/down")[0] == 200
    assert metrics.value(name, check="manual_http_status") == 0


def test_the_bytes_that_a_collection_frees_are_counted(scraped):
    gc = "storage:\n  maintenance: {{gc: {{grace: 1s}}}}\n"
    metrics = scraped(text=CONFIGURATION.replace("storage:\n", gc))
    assert push_blob(metrics.server, b"unused blob")[0] == 201

    def freed():
        metrics.request("POST", "/debug/maintenance/gc")
        return metrics.value("registry_maintenance_freed_bytes_total", task="gc")

    wait_until(freed)
    assert freed() == len(b"unused blob")


def test_all_processes_are_measured(scraped):
    metrics = scraped("  workers: 2\n")
    wait_until(lambda: metrics.value("registry_thread_pool_threads", pool="storage") == 200)
    wait_until(lambda: metrics.value("registry_event_loop_delay_seconds_count"))
    assert metrics.value("registry_thread_pool_queue", pool="storage") == 0
    assert metrics.value("process_cpu_seconds_total") > 0


def log_in(server, name, password):
    return server.ask("GET", "/auth/token", headers={"Authorization": basic_header(name, password)})


def test_refused_tokens_are_counted_and_cached_logins_also_after_a_reload(scraped, tmp_path):
    (tmp_path / "users").write_bytes(password_lines(ada="secret"))
    access = "auth: {{htpasswd: {{realm: r, path: users}}}}\naccess: {{tokens: {{}}}}\n"
    metrics = scraped("  workers: 2\n" + access)
    server = metrics.server

    def counted(name, **labels):
        return metrics.value(name, **labels) or 0

    def logins(result):
        return counted("registry_cache_requests_total", cache="logins", result=result)

    refused = [log_in(server, "eve", f"wrong {n}")[0].status for n in range(16)].count(429)
    assert refused
    wait_until(lambda: counted("registry_limits_hit_total", limit="logins") == refused)
    assert (logins("hit"), logins("miss")) == (0, 0)
    for _ in range(8):
        assert log_in(server, "ada", "secret")[0].status == 200
    wait_until(lambda: logins("hit") + logins("miss") == 8)
    before = logins("miss")
    # Each process has a cache of its own.
    assert before in {1, 2}
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any('msg="reloaded' in line for line in server.lines))
    assert log_in(server, "ada", "secret")[0].status == 200
    wait_until(lambda: logins("hit") + logins("miss") == 9)
    assert logins("miss") >= before


def test_refused_requests_for_tokens_of_an_address_are_counted(scraped):
    access = "access: {{tokens: {{}}, anonymous: [pull]}}\n"
    metrics = scraped("  limits: {{requestsperaddress: 0.01}}\n" + access)
    statuses = [metrics.server.ask("GET", "/auth/token")[0].status for _ in range(2)]
    assert statuses == [200, 429]
    assert metrics.value("registry_limits_hit_total", limit="requestsperaddress") == 1
