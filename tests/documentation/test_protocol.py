"""``docs/protocol.rst``: its tables agree with the routes, with the code and with a registry."""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from tests.support.manifests import digest_of
from twisted_registry.api.routes import ALL_ENDPOINTS
from twisted_registry.oci.errors import ErrorCode
from twisted_registry.oci.manifest import KIND_BY_MEDIA_TYPE
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing import Registry, build_image

PAGE = Path(__file__).parents[2] / "docs" / "protocol.rst"
#: Headers of responses that are not in the table.
COMMON = {
    *("connection", "content-length", "content-security-policy", "content-type", "date", "server"),
    *("docker-distribution-api-version", "transfer-encoding", "x-content-type-options"),
    "x-request-id",
}
BLOB = b"a blob"


def read_tables():
    """Return the rows of each table of the page, by the text of its first head."""
    document = publish_doctree(PAGE.read_text(encoding="utf-8"))
    found = {}
    for table in document.findall(nodes.table):
        head, *rows = [
            [entry.astext() for entry in row.children] for row in table.findall(nodes.row)
        ]
        found[head[0]] = rows
    return found


@pytest.fixture(scope="module")
def tables():
    return read_tables()


def path_of(endpoint):
    if endpoint.handler == "repository":
        return "/v2/_repository/<name>"
    names = ["<name>"] if endpoint.has_name else []
    tail = [f"<{endpoint.variable}>" if part == "*" else part for part in endpoint.tail]
    # The slash at the end is that of the specification; the registry needs none.
    end = "/" if endpoint.handler in {"base", "blob_upload"} else ""
    return "/".join(["/v2", *names, *tail]) + end


def test_the_table_has_every_route(tables):
    routes = {
        f"{method} {path_of(endpoint)}"
        for endpoint in ALL_ENDPOINTS
        for method in endpoint.methods
        if method != "HEAD"
    }
    assert sorted(row[1] for row in tables["id"]) == sorted(routes)
    with_get = [endpoint for endpoint in ALL_ENDPOINTS if "GET" in endpoint.methods]
    assert all("HEAD" in endpoint.methods for endpoint in with_get)


def test_the_table_of_errors_has_every_code(tables):
    shown = {code: int(status) for code, status, _ in tables["code"]}
    assert shown == {code.name: code.status for code in ErrorCode}


def test_the_table_of_media_types_has_every_known_type(tables):
    assert {row[0] for row in tables["media type"]} == KIND_BY_MEDIA_TYPE.keys()


class Client:
    """Sends requests, and keeps what was answered by the request of the table."""

    def __init__(self):
        self.statuses, self.headers = {}, {}

    def ask(self, registry, row, query="", body=None, *, url=None, headers=None, **values):
        """Send a request with values for the variables of its path, or to a URL."""
        method, path = row.split(" ")
        if url is None:
            target = re.sub(r"<(\w+)>", lambda match: values[match[1]], path)
        else:
            parts = urlsplit(url)
            target, query = parts.path, "&".join(filter(None, (parts.query, query)))
        connection = http.client.HTTPConnection(registry.host, timeout=30)
        try:
            connection.request(method, f"{target}?{query}", body, headers or {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        assert response.status < 400, (row, content)
        self.statuses.setdefault(row, set()).add(response.status)
        names = {name.lower() for name in response.headers} - COMMON
        self.headers.setdefault(row, set()).update(names)
        return response


def use_uploads(client, registry):
    start, upload = "POST /v2/<name>/blobs/uploads/", "/v2/<name>/blobs/uploads/<upload>"
    client.ask(registry, start, f"digest={digest_of(BLOB)}", BLOB, name="a")
    client.ask(registry, start, f"mount={digest_of(BLOB)}&from=a", name="b")
    url = client.ask(registry, start, name="a").headers["Location"]
    url = client.ask(registry, f"PATCH {upload}", body=b"more", url=url).headers["Location"]
    client.ask(registry, f"GET {upload}", url=url)
    client.ask(registry, f"PUT {upload}", f"digest={digest_of(b'more')}", url=url)
    url = client.ask(registry, start, name="a").headers["Location"]
    client.ask(registry, f"DELETE {upload}", url=url)


def use_blobs(client, registry):
    blob, values = "/v2/<name>/blobs/<digest>", {"name": "a", "digest": digest_of(BLOB)}
    for headers in ({}, {"Range": "bytes=1-2"}, {"If-None-Match": f'"{digest_of(BLOB)}"'}):
        client.ask(registry, f"GET {blob}", headers=headers, **values)
    client.ask(registry, f"DELETE {blob}", **values)


def use_manifests(client, registry):
    manifest = "/v2/<name>/manifests/<reference>"
    image = build_image(files={"a": "1"})
    registry.push_image("a:1", image)
    for headers in ({}, {"If-None-Match": f'"{image.digest}"'}):
        client.ask(registry, f"GET {manifest}", name="a", reference="1", headers=headers)
    # Two of these are more than a page.
    notes = {"note": "x" * 3 * 1024 * 1024}
    first = build_image(files={"c": ""}, subject=image, annotations=notes)
    second = build_image(files={"d": ""}, subject=image, annotations=notes)
    for referrer in (first, second):
        registry.push_image(f"b@{referrer.digest}", referrer)
    client.ask(
        registry,
        f"PUT {manifest}",
        "tag=1&tag=2",
        first.manifest.read(),
        headers={"Content-Type": first.media_type},
        name="b",
        reference=first.digest,
    )
    values = {"name": "b", "digest": image.digest}
    for query in ("", "artifactType=a/b"):
        client.ask(registry, "GET /v2/<name>/referrers/<digest>", query, **values)
    client.ask(registry, "GET /v2/<name>/tags/list", "n=1", name="b")
    client.ask(registry, f"DELETE {manifest}", name="b", reference="1")


def test_the_table_has_the_responses_of_a_registry(tables):
    client = Client()
    with Registry() as registry:
        use_uploads(client, registry)
        use_blobs(client, registry)
        use_manifests(client, registry)
        client.ask(registry, "GET /v2/")
        client.ask(registry, "GET /v2/_catalog", "n=1")
        client.ask(registry, "GET /v2/_oci/ext/discover")
        client.ask(registry, "GET /v2/<name>/_oci/ext/discover", name="a")
        client.ask(registry, "DELETE /v2/_repository/<name>", name="a")
    with Registry(storage=lambda reactor: MemoryDriver(reactor, min_chunk_bytes=1)) as registry:
        client.ask(registry, "POST /v2/<name>/blobs/uploads/", name="a")
    redirect = {"name": "redirect", "options": {"baseurl": "https://cdn.example.com"}}
    with Registry(config={"middleware": {"storage": [redirect]}}) as registry:
        image = build_image(layers=[BLOB])
        registry.push_image("a:1", image)
        client.ask(registry, "GET /v2/<name>/blobs/<digest>", name="a", digest=digest_of(BLOB))

    shown = {row: (statuses, headers) for _, row, statuses, headers in tables["id"]}
    assert client.statuses == {
        row: set(map(int, statuses.split(","))) for row, (statuses, _) in shown.items()
    }
    assert client.headers == {
        row: set(headers.lower().replace(",", " ").split()) for row, (_, headers) in shown.items()
    }
