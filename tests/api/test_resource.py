"""Behaviour of every route: probe, version check, methods, headers and URLs."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.api.setups import SITES
from tests.support.manifests import digest_of
from twisted_registry.api import routes
from twisted_registry.api.context import APISettings, URLBuilder
from twisted_registry.api.resource import RegistryResource
from twisted_registry.auth.access import OpenAccess
from twisted_registry.testing.server import serve

pytestmark = pytest.mark.setups(*SITES)

DIGEST = digest_of(b"")
UPLOAD = "00000000-0000-4000-8000-000000000000"
PATHS = {
    "base": "",
    "catalog": "_catalog",
    "extensions": "_oci/ext/discover",
    "tags": "a/tags/list",
    "manifest": "a/manifests/latest",
    "blob_upload": "a/blobs/uploads/",
    "blob_upload_chunk": f"a/blobs/uploads/{UPLOAD}",
    "blob": f"a/blobs/{DIGEST}",
    "referrers": f"a/referrers/{DIGEST}",
    "repository": "_repository/a",
}
EVERY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
ROUTES = (routes.BASE, routes.CATALOG_LIST, routes.REPOSITORY, *routes.ENDPOINTS)


@pytest_twisted.ensureDeferred
async def test_the_base_endpoint_answers_the_version_check(api):
    for path in ("/v2/", "/v2", "/v2/?x=y"):
        for method in ("GET", "HEAD"):
            response = await api.request_target(method, path)
            assert response.status == 200
            assert response.get("Content-Type") == "application/json"
            assert response.get("Content-Length") == "2"
            assert response.get("Docker-Distribution-Api-Version") == "registry/2.0"
            assert response.body == (b"{}" if method == "GET" else b"")


@pytest_twisted.ensureDeferred
async def test_the_root_answers_a_probe(api):
    for method in ("GET", "HEAD"):
        response = await api.request_target(method, "/")
        assert (response.status, response.body) == (200, b"")
        assert response.get("Cache-Control") == "no-cache"


@pytest_twisted.ensureDeferred
async def test_unknown_paths_are_404(api):
    for path in (
        "x",
        "a/b/c",
        "a/tags",
        "a/tags/list/more",
        "a/manifests/",
        "tags/list",
        "_catalog/x",
        "a/blobs/",
        "a%2Ftags/list",
        "a/tags%2Flist",
        "%ff/tags/list",
    ):
        response = await api("GET", path)
        assert (response.status, response.code) == (404, "UNSUPPORTED"), path
        assert response.get("Docker-Distribution-Api-Version") == "registry/2.0"


@pytest.mark.parametrize("prefix", ["", "/registry/", "/deep/er/"])
@pytest_twisted.ensureDeferred
async def test_paths_outside_of_the_prefix_are_404(start, prefix):
    async with start(prefix=prefix) as api:
        for path in ("/x", "/v1/", "/x/v2/", "//", "/v2x", "/%76%32%2f"):
            response = await api.request_target("GET", path)
            assert (response.status, response.code) == (404, "UNSUPPORTED"), path
        for path in ("/", "/v1/"):
            response = await api.request_target("POST", path, body=b"x")
            assert response.status in {404, 405}, path
            assert response.code == "UNSUPPORTED"


@pytest.mark.parametrize("endpoint", ROUTES, ids=lambda endpoint: endpoint.handler)
@pytest_twisted.ensureDeferred
async def test_unsupported_methods_are_405_with_allow(api, endpoint):
    path = PATHS[endpoint.handler]
    allowed = [*endpoint.methods, "OPTIONS"]
    for method in (*EVERY_METHOD, "TRACE", "BREW"):
        if method in endpoint.methods:
            continue
        response = await api(method, path, body=b"x" if method in {"POST", "PUT"} else None)
        if method in {"TRACE", "BREW"} and response.status in {400, 501}:
            continue  # a method that the channel does not know
        assert response.status == 405, method
        assert response.get("Allow").split(", ") == allowed
        assert response.get("Docker-Distribution-Api-Version") == "registry/2.0"
        if method != "HEAD":
            assert response.code == "UNSUPPORTED"
    response = await api("OPTIONS", path)
    assert (response.status, response.body) == (204, b"")
    assert response.get("Allow").split(", ") == allowed
    assert response.get("Content-Type") is None


@pytest_twisted.ensureDeferred
async def test_configured_headers_are_in_every_response(start):
    headers = {
        "Access-Control-Allow-Origin": ["https://ui.example"],
        "X-Content-Type-Options": ["nosniff"],
        "X-Twice": ["one", "two"],
    }
    preflight = {"Origin": "https://ui.example", "Access-Control-Request-Method": "DELETE"}
    async with start(settings=APISettings(headers=headers)) as api:
        for method, path, status in (
            ("GET", "", 200),
            ("GET", "a/tags/list", 404),
            ("POST", "_catalog", 405),
            ("OPTIONS", "a/manifests/x", 204),
            ("GET", "A/tags/list", 400),
        ):
            response = await api(method, path)
            assert response.status == status
            assert response.get("Access-Control-Allow-Origin") == "https://ui.example"
            assert response.get("X-Content-Type-Options") == "nosniff"
            assert response.headers.getRawHeaders("X-Twice") == ["one", "two"]
        response = await api("OPTIONS", "a/manifests/x", preflight)
        assert response.get("Access-Control-Allow-Methods") == "GET, HEAD, PUT, DELETE, OPTIONS"
        assert (await api("OPTIONS", "a/manifests/x")).get("Access-Control-Allow-Methods") is None


@pytest_twisted.ensureDeferred
async def test_a_cors_preflight_with_a_configured_origin_allows_the_methods(start):
    headers = {
        "access-control-allow-origin": ["*"],
        "Access-Control-Allow-Methods": ["HEAD", "GET"],
    }
    async with start(settings=APISettings(headers=headers)) as api:
        response = await api("OPTIONS", "a/tags/list", {"Access-Control-Request-Method": "GET"})
        allowed = response.headers.getRawHeaders("Access-Control-Allow-Methods")
        assert allowed == ["HEAD", "GET"]


@pytest_twisted.ensureDeferred
async def test_a_cors_preflight_without_a_configured_origin_allows_nothing(api):
    response = await api("OPTIONS", "a/tags/list", {"Access-Control-Request-Method": "GET"})
    assert response.get("Access-Control-Allow-Methods") is None


@pytest_twisted.ensureDeferred
async def test_extensions_are_discovered(api):
    response = await api("GET", "_oci/ext/discover")
    assert [extension["name"] for extension in response.json()["extensions"]] == ["_repository"]
    response = await api("GET", "a/_oci/ext/discover")
    assert (response.status, response.code) == (404, "NAME_UNKNOWN")
    await api.push_blob(b"x")
    for method in ("GET", "HEAD"):
        assert (await api(method, "a/_oci/ext/discover")).status == 200


async def location(api, headers=()):
    response = await api("POST", "a/b/blobs/uploads/", headers, b"")
    assert response.status == 202
    return response.get("Location")


@pytest_twisted.ensureDeferred
async def test_the_api_is_served_below_a_prefix(start):
    async with start(prefix="/registry/") as api:
        assert (await api("GET", "")).status == 200
        assert (await api.request_target("GET", "/")).status == 200
        assert (await api.request_target("GET", "/v2/")).status == 404
        url = await location(api)
        assert url.startswith(f"http://{api.host}/registry/v2/a/b/blobs/uploads/")
        assert (await api.request_target("GET", url)).status == 204


@pytest.mark.parametrize("where", [[b"v2"], [b"deep", b"er", b"v2"], [b"any thing"]])
@pytest_twisted.ensureDeferred
async def test_the_resource_is_mounted_in_a_twisted_web_site(where):
    """The API may be mounted anywhere, also under another Site."""
    async with serve(reactor) as served:
        root = folder = Resource()
        for segment in where[:-1]:
            below = Resource()
            folder.putChild(segment, below)
            folder = below
        folder.putChild(where[-1], RegistryResource(served.registry, OpenAccess(), reactor))
        port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
        try:
            base = f"http://127.0.0.1:{port.getHost().port}/" + "/".join(
                segment.decode().replace(" ", "%20") for segment in where
            )
            response = await treq.post(f"{base}/a/blobs/uploads/", persistent=False)
            await response.content()
            (url,) = response.headers.getRawHeaders("Location")
            assert url.startswith(f"{base}/a/blobs/uploads/")
            response = await treq.put(
                f"{url}&digest={digest_of(b'x')}", data=b"x", persistent=False
            )
            assert response.code == 201
            await response.content()
            (url,) = response.headers.getRawHeaders("Location")
            response = await treq.get(url, persistent=False)
            assert await response.content() == b"x"
        finally:
            await port.stopListening()


@pytest.mark.parametrize(
    ("urls", "headers", "origin"),
    [
        (URLBuilder(), {"Host": "r.example:5000"}, "http://r.example:5000"),
        (URLBuilder(), {"Host": "r", "X-Forwarded-Proto": "https"}, "https://r"),
        (
            URLBuilder(),
            {"Host": "r", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "f.example"},
            "https://f.example",
        ),
        (URLBuilder(), {"Host": "r", "Forwarded": 'proto=https;host="f.example:8443"'},
         "https://f.example:8443"),
        (URLBuilder(host="https://set.example"), {"Host": "r", "X-Forwarded-Host": "f"},
         "https://set.example"),
        (URLBuilder(relative=True), {"Host": "r"}, ""),
        (URLBuilder(host="https://set.example", relative=True), {"Host": "r"}, ""),
        (URLBuilder(), {"Host": "evil.example/path"}, None),
        (URLBuilder(), {"Host": "user@evil.example"}, None),
        (URLBuilder(), {"Host": 'r"><script>'}, None),
        (URLBuilder(), {"Host": "r", "X-Forwarded-Host": "a b"}, ""),
        (URLBuilder(), {"Host": "r", "X-Forwarded-Host": "x/../y"}, ""),
        (URLBuilder(), {"Host": "r", "Forwarded": 'host="a\\"b"'}, "http://r"),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_locations_have_the_origin_that_the_client_uses(start, urls, headers, origin):
    async with start(settings=APISettings(urls=urls)) as api:
        response = await api("POST", "a/b/blobs/uploads/", headers, b"")
        if origin is None:
            # The HTTP engine may refuse it; otherwise the response does not contain it.
            assert response.status in {202, 400}
            origin = ""
        else:
            assert response.status == 202
        if response.status == 202:
            assert response.get("Location").startswith(f"{origin}/v2/a/b/blobs/uploads/")


@pytest_twisted.ensureDeferred
async def test_a_location_without_host_header_is_a_path(api):
    request = b"POST /v2/a/blobs/uploads/ HTTP/1.0\r\nContent-Length: 0\r\n\r\n"
    response = await api.raw(request, "POST")
    assert response.status == 202
    assert response.get("Location").startswith("/v2/a/blobs/uploads/")


@pytest_twisted.ensureDeferred
async def test_malformed_queries_are_refused(api):
    for query in ("n=%ff", "&".join(f"a{number}=1" for number in range(200))):
        response = await api("GET", f"_catalog?{query}")
        assert (response.status, response.code) == (400, "UNSUPPORTED"), query
    response = await api.raw(b"GET /v2/_catalog?n=\xff HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response.status == 400


@pytest.mark.parametrize("name", ["A", "a/B", "-a", "a..b", "a//b", "..", ".", "a" * 256, "_x",
                                  "a%20b", "a%00", "%C3%A4", "a%5C", "a:b", "a@b"])  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_malformed_names_are_refused(api, name):
    for method, path in (
        ("GET", "tags/list"),
        ("GET", "manifests/x"),
        ("PUT", "manifests/x"),
        ("POST", "blobs/uploads/"),
        ("GET", f"blobs/{DIGEST}"),
        ("GET", f"referrers/{DIGEST}"),
        ("GET", "_oci/ext/discover"),
    ):
        response = await api(method, f"{name}/{path}", body=b"")
        assert (response.status, response.code) == (400, "NAME_INVALID"), (name, path)
        assert "reason" in response.json()["errors"][0]["detail"]


@pytest_twisted.ensureDeferred
async def test_malformed_references_are_refused(api):
    await api.push_blob(b"x")
    for method, path, code in (
        ("PUT", "a/manifests/.x", "TAG_INVALID"),
        ("PUT", f"a/manifests/{'x' * 129}", "TAG_INVALID"),
        ("PUT", "a/manifests/-x", "TAG_INVALID"),
        ("DELETE", "a/manifests/%C3%A4", "TAG_INVALID"),
        ("PUT", "a/manifests/..", "TAG_INVALID"),
        ("DELETE", "a/manifests/sha256:ab", "DIGEST_INVALID"),
        ("PUT", f"a/manifests/md5:{'0' * 32}", "DIGEST_INVALID"),
        ("PUT", f"a/manifests/sha256:{'A' * 64}", "DIGEST_INVALID"),
        ("GET", "a/blobs/x", "DIGEST_INVALID"),
        ("DELETE", "a/blobs/sha256:", "DIGEST_INVALID"),
        ("GET", "a/blobs/..", "DIGEST_INVALID"),
        ("GET", "a/referrers/x", "DIGEST_INVALID"),
        ("GET", f"a/referrers/sha256:{'0' * 63}", "DIGEST_INVALID"),
        ("POST", "a/blobs/uploads/?mount=x&from=b", "DIGEST_INVALID"),
        ("POST", "a/blobs/uploads/?digest=x", "DIGEST_INVALID"),
        ("POST", "a/blobs/uploads/?digest-algorithm=md5", "DIGEST_INVALID"),
        ("POST", f"a/blobs/uploads/?mount={DIGEST}&from=..", "NAME_INVALID"),
        ("POST", f"a/blobs/uploads/?mount={DIGEST}&from=a%2F%2E%2E%2Fb", "NAME_INVALID"),
        ("PUT", "a/manifests/x?tag=..", "TAG_INVALID"),
        ("GET", "a/blobs/uploads/x", "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "a/blobs/uploads/..", "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", f"a/blobs/uploads/{UPLOAD.upper()}x", "BLOB_UPLOAD_UNKNOWN"),
    ):
        response = await api(method, path, body=b"{}" if method in {"PUT", "PATCH"} else None)
        status = 404 if code == "BLOB_UPLOAD_UNKNOWN" else 400
        assert (response.status, response.code) == (status, code), path


@pytest.mark.parametrize(
    "reference",
    [
        *(".INVALID_MANIFEST_NAME", "x" * 129, "..", "%C3%A4"),
        *("sha256:ab", f"md5:{'0' * 32}", f"sha256:{'A' * 64}"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_manifest_by_a_malformed_reference_is_unknown(api, reference):
    await api.push_image()
    response = await api("GET", f"a/manifests/{reference}")
    assert (response.status, response.code) == (404, "MANIFEST_UNKNOWN")
    response = await api("HEAD", f"a/manifests/{reference}")
    assert (response.status, response.body) == (404, b"")


@pytest_twisted.ensureDeferred
async def test_browsers_are_told_not_to_run_a_response(api):
    await api.push_image(b"layer")
    for path in (
        *("", "a/manifests/latest", f"a/blobs/{digest_of(b'layer')}", "a/tags/list", "_catalog"),
        *(f"a/referrers/{DIGEST}", "a/manifests/missing", "no/such"),
    ):
        for method in ("GET", "HEAD"):
            response = await api(method, path)
            assert response.get("X-Content-Type-Options") == "nosniff", path
            assert response.get("Content-Security-Policy") == "default-src 'none'; sandbox", path
    part = await api("GET", f"a/blobs/{digest_of(b'layer')}", {"Range": "bytes=1-2"})
    assert (part.status, part.get("X-Content-Type-Options")) == (206, "nosniff")


@pytest_twisted.ensureDeferred
async def test_configured_headers_replace_the_defaults(start):
    headers = {"x-content-type-options": ["nosniff"], "content-security-policy": ["sandbox"]}
    async with start(settings=APISettings(headers=headers)) as api:
        for path in ("", "x"):
            response = await api("GET", path)
            assert response.get("X-Content-Type-Options") == "nosniff"
            assert response.get("Content-Security-Policy") == "sandbox"
            assert response.get("Docker-Distribution-Api-Version") == "registry/2.0"


@pytest_twisted.ensureDeferred
async def test_an_error_has_the_json_of_the_specification(api):
    response = await api("GET", f"a/blobs/{DIGEST}")
    assert response.status == 404
    assert response.get("Content-Type") == "application/json"
    assert json.loads(response.body) == {
        "errors": [
            {
                "code": "BLOB_UNKNOWN",
                "message": "blob unknown to registry",
                "detail": {"digest": DIGEST},
            }
        ]
    }
    head = await api("HEAD", f"a/blobs/{DIGEST}")
    assert (head.status, head.get("Content-Length")) == (404, response.get("Content-Length"))


@pytest_twisted.ensureDeferred
async def test_headers_that_are_not_utf_8_are_accepted(api):
    for name in ("Authorization", "User-Agent", "Accept", "X-Forwarded-Host", "Range"):
        for path in ("", "a/tags/list", f"a/blobs/{DIGEST}", "x"):
            response = await api("GET", path, {name: "\x80\xff"})
            assert response.status in {200, 404}
