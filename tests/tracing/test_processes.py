"""Traces of registries as processes, with a collector, a bucket and a receiver of notifications."""

from __future__ import annotations

import json
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.manifests import OCI_IMAGE, digest_of, image
from tests.support.otlp_collector import OTLPCollector
from tests.support.processes import SERVE, RegistryProcess, write_configuration
from tests.support.receiver import Receiver, wait_for
from tests.support.s3_servers import Daemons, start_strict
from tests.support.tokens import forge

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACED = {
    "traceparent": f"00-{TRACE}-{CALLER}-01",
    "tracestate": "vendor=1",
    "baggage": "team=storage",
    "Authorization": "Basic c2VjcmV0LXVzZXI6c2VjcmV0LXBhc3N3b3Jk",
}
SERVER, CLIENT, ERROR = 2, 3, 2
CONFIG = b"{}"
#: More than one piece of a bucket.
LAYER = b"layer of an image " * 400_000

BUCKET = """
version: 0.1
log: {{level: debug, formatter: json}}
storage:
  s3: {bucket}
http:
  addr: 127.0.0.1:0
  secret: do-not-tell
notifications:
  endpoints:
    - name: hook
      url: {hook}?token=secret-token
      timeout: 10s
      ignore: {{mediatypes: [application/octet-stream]}}
"""


@pytest.fixture
def collector():
    with OTLPCollector() as collector:
        yield collector


@pytest.fixture
def bucket(tmp_path):
    (tmp_path / "bucket").mkdir()
    with closing(Daemons(tmp_path / "bucket")) as daemons:
        yield start_strict(daemons)


@contextmanager
def serve(folder, endpoint, path, **environ):
    """Run a registry that sends its spans soon."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with RegistryProcess(*SERVE, path, cwd=folder, **{**variables, **environ}) as server:
        yield server


def push(server, headers):
    """Push an image with a large layer to ``a:latest``."""

    def ask(status, *arguments):
        response, body = server.ask(*arguments)
        assert response.status == status, body
        return response.headers["Location"].partition(f":{server.port}")[2]

    for content in (LAYER, CONFIG):
        path = ask(202, "POST", "/v2/a/blobs/uploads/", None, headers)
        path = ask(202, "PATCH", path, content, headers)
        ask(201, "PUT", f"{path}&digest={digest_of(content)}", b"", headers)
    typed = {**headers, "Content-Type": OCI_IMAGE}
    ask(201, "PUT", "/v2/a/manifests/latest", image(CONFIG, LAYER), typed)


def test_push_pull_bucket_and_webhook_are_one_trace(tmp_path, collector, bucket):
    with Receiver() as receiver:
        path = tmp_path / "registry.yml"
        options = {**bucket.options, "chunksize": 5 << 20}
        path.write_text(BUCKET.format(bucket=json.dumps(options), hook=receiver.url))
        with serve(tmp_path, collector.url, str(path)) as server:
            push(server, TRACED)
            response, _ = server.ask("GET", f"/v2/a/blobs/{digest_of(LAYER)}", None, TRACED)
            assert response.status == 307
            missing, _ = server.ask("GET", "/v2/a/manifests/none", None, TRACED)
            assert missing.status == 404
            wait_for(lambda: receiver.received)
            status, out, lines = server.stop()
    assert status == 0
    assert set(collector.paths) == {"/v1/traces"}
    spans = [span for span in collector.spans if span.trace == TRACE]
    assert {(span.service["service.name"]) for span in spans} == {"distribution"}

    (put,) = [span for span in spans if span.name == "PUT /v2/a/manifests/latest"]
    assert (put.kind, put.parent, put.status) == (SERVER, CALLER, 0)
    assert put.attributes["http.response.status_code"] == 201
    assert put.attributes["client.address"] == "127.0.0.1"
    # Calls to the driver, and below them the requests to the bucket.
    requests = [span for span in spans if span.attributes.get("server.address") == "127.0.0.1"]
    stored = [each for each in requests if each.name.startswith("PUT /registry/docker/registry/v2")]
    assert any(collector.ancestors(each) == ["PutContent", put.name] for each in stored)
    calls = [span for span in spans if span.name == "PutContent"]
    assert calls[0].attributes["io.cncf.distribution.storage.driver.name"] == "s3"
    assert "/docker/registry/v2/repositories/a/_manifests/tags/latest/current/link" in {
        call.attributes["io.cncf.distribution.storage.path"] for call in calls
    }
    # A piece that is sent to the bucket while the body arrives.
    patches = [span for span in spans if span.name.startswith("PATCH /v2/a/blobs/uploads/")]
    assert [each for each in stored if collector.ancestors(each) == [patches[0].name]]
    # The webhook, which is sent later and by another part of the registry.
    (hook,) = [span for span in requests if span.name == "POST" and span.kind == CLIENT]
    assert collector.ancestors(hook) == [put.name]
    fields, _ = receiver.received[0]
    assert fields["traceparent"] == f"00-{TRACE}-{hook.id}-01"
    assert (fields["tracestate"], fields["baggage"]) == ("vendor=1", "team=storage")
    # What is missing in the bucket is no error.
    assert [span for span in spans if span.status == ERROR] == []
    # The logs have the trace.
    (line,) = [each for each in lines if "manifest unknown" in each]
    assert json.loads(line)["trace_id"] == TRACE
    access = [each for each in out.splitlines() if "manifests/none" in each]
    assert access[0].endswith(f" trace_id={TRACE}")
    # Neither credentials nor queries are in spans.
    text = repr(collector.spans)
    assert not [word for word in ("c2VjcmV0", "secret", "_state", "X-Amz") if word in text]


@contextmanager
def issuer():
    """Run an issuer without keys; yields its URL, and the headers of requests by their path."""
    received = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            received[self.path] = self.headers
            document = {"issuer": url, "jwks_uri": f"{url}/keys?secret=1", "keys": []}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield url, received
        finally:
            server.shutdown()
            thread.join()


def test_requests_to_an_issuer_of_tokens_belong_to_the_trace(tmp_path, collector):
    with issuer() as (url, received):
        rule = "{claims: {sub: '*'}, repositories: ['**'], allow: [pull]}"
        access = f"{{tokens: {{}}, issuers: [{{issuer: '{url}', audience: a, rules: [{rule}]}}]}}"
        path = write_configuration(tmp_path, more=f"access: {access}\n")
        token = forge({"alg": "RS256", "kid": "one"}, {"iss": url})
        form = f"grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}"
        headers = {**TRACED, "Content-Type": "application/x-www-form-urlencoded"}
        with serve(tmp_path, collector.url, path) as server:
            response, _ = server.ask("POST", "/auth/token", form, headers)
            assert response.status == 401
            server.stop()
    (request,) = collector.named("POST /auth/token")
    spans = [span for span in collector.spans if span.kind == CLIENT]
    assert {span.name for span in spans} == {"GET /.well-known/openid-configuration", "GET /keys"}
    assert all(collector.ancestors(span) == [request.name] for span in spans)
    sent = {headers["traceparent"] for headers in received.values()}
    assert sent == {f"00-{TRACE}-{span.id}-01" for span in spans}
    assert "secret" not in repr(collector.spans)
    assert token not in repr(collector.spans)


def test_a_collector_that_is_down_changes_nothing_for_clients(tmp_path, collector):
    path = write_configuration(tmp_path)
    with serve(tmp_path, collector.url, path) as server:
        assert server.ask()[0].status == 200
        wait_for(lambda: collector.named("GET /v2/"))
        collector.stop()
        for _ in range(200):
            assert server.ask()[0].status == 200
        wait_for(lambda: [line for line in server.lines if "tracing: " in line])
        status, _, lines = server.stop()
    assert status == 0
    complaints = [line for line in lines if "tracing: " in line]
    assert len(complaints) == 2  # of the SDK, and at the stop
    assert "the last spans were not sent within 2 s" in complaints[1]
    assert not [line for line in lines if "Traceback" in line]


def test_every_worker_sends_its_spans(tmp_path, collector):
    path = write_configuration(tmp_path, more="  workers: 2\n")
    log = "log: {level: debug}\n"
    (tmp_path / "registry.yml").write_text((tmp_path / "registry.yml").read_text() + log)
    with serve(tmp_path, collector.url, path) as server:

        def both_have_served():
            server.ask("GET", "/v2/a/manifests/none", None, TRACED)
            found = [line for line in server.lines if "manifest unknown" in line]
            return len({line.partition("process.pid=")[2].split()[0] for line in found}) == 2

        wait_for(both_have_served)
        status, _, lines = server.stop()
    assert status == 0
    errors = [line for line in lines if "manifest unknown" in line]
    assert all(f"trace_id={TRACE}" in line for line in errors)
    assert len(collector.named("GET /v2/a/manifests/none")) == len(errors)


def test_without_a_sample_the_context_is_passed_on(tmp_path, collector):
    with Receiver() as receiver:
        more = f"notifications: {{endpoints: [{{name: hook, url: '{receiver.url}'}}]}}\n"
        path = write_configuration(tmp_path, more=more)
        with serve(tmp_path, collector.url, path, OTEL_TRACES_SAMPLER="always_off") as server:
            push(server, TRACED)
            wait_for(lambda: receiver.received)
            server.stop()
    assert collector.spans == []
    version, trace, _, flags = receiver.received[0][0]["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")


def test_spans_can_be_printed(tmp_path):
    path = write_configuration(tmp_path)
    with serve(tmp_path, "", path, OTEL_TRACES_EXPORTER="console") as server:
        server.ask("GET", "/v2/?secret=1", None, TRACED)
        status, _, lines = server.stop()
    assert status == 0
    text = "\n".join(lines)
    (span,) = json.JSONDecoder().raw_decode(text[text.index("{\n") :])[:1]
    assert span["name"] == "GET /v2/"
    assert "secret" not in str(span)
