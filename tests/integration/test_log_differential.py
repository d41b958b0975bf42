"""The lines of the same requests have the fields that they have in Distribution 2.8.3."""

from __future__ import annotations

import json
import re

import pytest

from tests.integration.servers import DISTRIBUTION, OURS
from tests.support.manifests import digest_of
from tests.support.processes import wait_until
from twisted_registry.oci.manifest import OCI_IMAGE

pytestmark = pytest.mark.integration

BLOB = b"a blob"
COMPLETED = ("response completed", "response completed with error")
#: The version of Go, and a Go value beside ``auth.user.name``.
THEIRS_ONLY = {"go.version", "auth.user"}
#: The requests of the push in a session.
PUSH = 2
LAST = "/v2/last/manifests/request"
FIELD = re.compile(r'([A-Za-z0-9.@_-]+)=("(?:[^"\\]|\\.)*"|[^ "]*)(?: |$)')


def configuration(formatter):
    return (
        f"log: {{level: info, formatter: {formatter}, fields: {{service: registry, level: 1}}}}\n"
    )


def session(remote):
    """Send requests that both registries answer with the same status; return the statuses."""
    more = {"Referer": "http://example.org/page", "User-Agent": 'agent "7"'}
    digest = digest_of(BLOB)
    remote.push_blob("a/b", BLOB)
    requests = [
        ("GET", "/v2/", None, more),
        ("GET", "/v2/a/b/manifests/latest", None, more),
        ("GET", f"/v2/a/b/blobs/{digest}", None, {}),
        ("HEAD", f"/v2/a/b/blobs/{digest}", None, {}),
        ("GET", f"/v2/a/b/blobs/{digest_of(b'other')}", None, {}),
        ("GET", "/v2/none/tags/list", None, {}),
        ("PUT", "/v2/a/b/manifests/latest", b"nonsense", {"Content-Type": OCI_IMAGE}),
        ("DELETE", f"/v2/a/b/blobs/{digest}", None, {}),
        ("GET", LAST, None, {}),
    ]
    return [remote.request(*request).status for request in requests]


def parse(line, formatter):
    """Return the fields of a line, or None for one of the access log."""
    if formatter != "text":
        return json.loads(line) if line.startswith("{") else None
    if not line.startswith("time="):
        return None
    assert FIELD.sub("", line) == "", line
    pairs = FIELD.findall(line)
    return {name: json.loads(value) if value[:1] == '"' else value for name, value in pairs}


def request_lines(served, formatter):
    found = [parse(line, formatter) for line in served.log.read_text().splitlines()]
    message = "message" if formatter == "logstash" else "msg"
    return [line for line in found if line is not None and line[message] in COMPLETED], found


def shown(line):
    """What is equal in the lines of both registries for a request."""
    uri = re.sub(r"uploads/[^?]*", "uploads/UPLOAD", line["http.request.uri"])
    names = ["http.request.method", "http.request.useragent", "http.response.status"]
    if "err.code" in line:
        names += [name for name in line if name.startswith("vars.")]
    names += ["err.code", "err.message", "http.request.referer", "http.response.written"]
    values = {name: str(line.get(name)) for name in names}
    if line["http.response.status"] not in {200, "200", 202, "202"}:
        # The details of errors differ.
        values.pop("http.response.written")
    return re.sub("_state=[^&]*", "_state=", uri), values


@pytest.mark.parametrize("formatter", ["text", "json", "logstash"])
def test_lines_of_requests_match_distribution(launcher, tmp_path, formatter):
    lines, everything = {}, {}
    for kind in (OURS, DISTRIBUTION):
        served = launcher.start(kind, tmp_path / kind, more=configuration(formatter))
        statuses = session(served.remote)
        assert statuses == [200, 404, 200, 200, 404, 404, 400, 202, 404]
        wait_until(lambda served=served: f"{LAST}" in served.log.read_text())
        served.stop()
        lines[kind], everything[kind] = request_lines(served, formatter)
        # Before these is the request that shows that the registry has started.
        lines[kind] = lines[kind][-len(statuses) - PUSH :]
    for ours, theirs in zip(lines[OURS], lines[DISTRIBUTION], strict=True):
        assert shown(ours) == shown(theirs)
        names = set(ours) - {"service", "fields.level"}
        if "err.code" not in ours:
            # Distribution has them only if a request fails.
            names = {name for name in names if not name.startswith("vars.")}
        assert names == set(theirs) - THEIRS_ONLY
        assert re.fullmatch(r"[0-9.]+(ms|µs|s)", ours["http.response.duration"])
    (ours,), (theirs,) = (
        [line for line in everything[kind] if line and "listening on" in str(line)]
        for kind in (OURS, DISTRIBUTION)
    )
    assert set(ours) == set(theirs) - THEIRS_ONLY
    assert ours["fields.level"] == theirs["fields.level"]
