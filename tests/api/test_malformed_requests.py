"""Malformed requests: no 5xx, no traceback, and no access outside of the store."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.setups import SITES
from tests.support.examples import examples
from tests.support.http_client import connect, head, parse
from tests.support.manifests import OCI_IMAGE, digest_of, image

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DIGEST = digest_of(b"layer")
UPLOAD = "00000000-0000-4000-8000-000000000000"
TRAVERSALS = (
    "..",
    ".",
    "%2e%2e",
    "%2E%2E%2F%2E%2E",
    "..%2f..%2f..%2foutside",
    "..%5c..%5coutside",
    "%00",
    "a%00b",
    "%c0%ae%c0%ae",
    "%ef%bc%8e%ef%bc%8e",
    "..;",
    "~root",
    "%2Fetc%2Fpasswd",
    "_uploads",
    "_layers",
    "_manifests",
    ".tmp",
    "..data",
    "%0d%0aX-Injected:%20yes",
    "%25",
    "x" * 300,
    "%F0%9F%90%B3",
    "sha256:..%2F..%2Foutside",
    f"sha256:{'0' * 62}..",
)
POSITIONS = (
    "{}/tags/list",
    "a/{}/tags/list",
    "{}/a/manifests/latest",
    "a/manifests/{}",
    "a/blobs/{}",
    "a/blobs/sha256:{}",
    "a/blobs/{}:" + "0" * 64,
    "a/blobs/uploads/{}",
    "{}/blobs/uploads/",
    "a/referrers/{}",
    "{}/referrers/" + DIGEST,
    "{}",
    "a/tags/list?n={}",
    "a/tags/list?last={}",
    "_catalog?last={}",
    "_catalog?n={}&last={}",
    "a/manifests/x?tag={}",
    "a/manifests/x?tag=a&tag={}&{}={}",
    "a/blobs/uploads/?mount={}&from=a",
    "a/blobs/uploads/?mount=" + DIGEST + "&from={}",
    "a/blobs/uploads/?digest={}",
    "a/blobs/uploads/?digest-algorithm={}",
    "a/blobs/uploads/" + UPLOAD + "?_state={}&digest={}",
    "a/referrers/" + DIGEST + "?artifactType={}&last={}",
)


def files_outside(root):
    """Return the files outside of the store, and their content."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
        if path.relative_to(root).parts[0] != "store"
    }


@pytest.fixture
def outside(tmp_path):
    """A file outside of the store, which must not change."""
    (tmp_path / "outside").write_bytes(b"outside")
    before = files_outside(tmp_path)
    yield tmp_path
    assert files_outside(tmp_path) == before


def check_response(response, method):
    assert response.status < 500 or (response.status == 501 and method not in METHODS), response
    assert response.is_complete
    assert response.headers.getRawHeaders("X-Injected") is None
    assert b"outside" not in response.body or response.status >= 400
    # The HTTP engine refuses some requests itself.
    if response.get("Docker-Distribution-Api-Version") and response.status >= 400:
        assert method == "HEAD" or response.code


@pytest.mark.setups("httpsite-files", "twisted-files")
@pytest.mark.parametrize("position", POSITIONS)
@pytest_twisted.ensureDeferred
async def test_path_traversals_are_refused(api, outside, position):
    await api.push_image(b"layer")
    for text in TRAVERSALS:
        path = position.replace("{}", text)
        for method in METHODS[:-1]:
            headers = {"Content-Type": OCI_IMAGE}
            body = image() if method in {"POST", "PUT", "PATCH"} else None
            response = await api(method, path, headers, body)
            check_response(response, method)
            if position.startswith("a/manifests/{}") and response.status == 201:
                # Some of these are valid tags.
                assert text in {"_uploads", "_layers", "_manifests"}
    assert (await api("GET", "a/manifests/latest")).status == 200


FRAGMENTS = st.one_of(
    st.sampled_from(TRAVERSALS),
    st.sampled_from(
        ("a", "b", "", "tags", "list", "manifests", "blobs", "uploads", "referrers", "_catalog",
         "_oci", "ext", "discover", "latest", DIGEST, UPLOAD, "sha512:" + "0" * 128)
    ),
    st.text(alphabet="abc._-:%/0123456789ABC~!$&'()*+,;=@|\\^`{}[]<>\"", max_size=12),
    st.text(max_size=6).map(lambda text: "".join(f"%{byte:02x}" for byte in os.fsencode(
        text.encode("utf-8", "replace")))),
)  # fmt: skip
PATHS = st.lists(FRAGMENTS, max_size=6).map("/".join)
PARAMETERS = st.tuples(
    st.sampled_from(("n", "last", "digest", "mount", "from", "tag", "_state", "artifactType",
                     "digest-algorithm", "", "%", "x")),
    FRAGMENTS,
).map("=".join)  # fmt: skip
QUERIES = st.lists(PARAMETERS, max_size=4).map("&".join)
LATIN = st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")
VALUES = st.one_of(
    st.sampled_from(
        ("", "*", "*/*", "bytes=0-", "bytes=-1", "0-5", "5-0", f'"{DIGEST}"', "text/html;q=x",
         OCI_IMAGE, "a/b", '"', ";=,", "99999999999999999999-", 'host="', "x" * 2000)
    ),
    st.text(alphabet=LATIN, max_size=30),
)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(
        ("Range", "If-Range", "If-Match", "If-None-Match", "Accept", "Content-Type",
         "Content-Range", "Authorization", "User-Agent", "X-Forwarded-For", "X-Forwarded-Host",
         "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Origin", "Cookie", "Accept-Encoding",
         "Access-Control-Request-Method", "Referer", "If-Modified-Since")
    ),
    VALUES,
    max_size=5,
)  # fmt: skip
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.sampled_from((image(), b"{}", b"[]", b"layer", b"\xef\xbb\xbf{}", b"{" * 3000)),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("mediaType", "schemaVersion", "config", "layers", "manifests",
                             "subject", "annotations", "digest", "size", "urls", "platform")),
            inner,
            max_size=4,
        ),
        max_leaves=8,
    ).map(lambda document: repr(document).replace("'", '"').replace("None", "null").encode(
        "utf-8", "replace")),
)  # fmt: skip
EXAMPLES = settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@EXAMPLES
@given(
    method=st.sampled_from((*METHODS, "TRACE", "BREW")),
    path=PATHS,
    query=QUERIES,
    headers=HEADERS,
    body=BODIES,
    chunks=st.booleans(),
)
@pytest.mark.setups("httpsite-files", "twisted-files")
@pytest_twisted.ensureDeferred
async def test_any_request_gets_a_complete_response(
    api, outside, method, path, query, headers, body, chunks
):
    target = f"/v2/{path}" + (f"?{query}" if query else "")
    if not target.isascii():
        target = target.encode().decode("latin-1")
    target = target.replace(" ", "%20")
    if body is not None and chunks:
        response = await api.stream(method, target, *filter(None, (body,)), headers=headers)
    else:
        response = await api.request_target(method, target, headers, body)
    check_response(response, method)


MEDIA_TYPES = st.sampled_from((
    OCI_IMAGE,
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
    "x/y",
    None,
))  # fmt: skip


@EXAMPLES
@given(media_type=MEDIA_TYPES, body=BODIES.filter(lambda body: body is not None))
@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_any_manifest_is_stored_or_refused(api, media_type, body):
    """An accepted manifest is served byte for byte; any other is refused."""
    response = await api.push_manifest(body, media_type=media_type)
    if response.status == 201:
        response = await api("GET", "a/manifests/latest")
        assert (response.status, response.body) == (200, body)
        assert (await api("GET", f"a/referrers/{DIGEST}")).status == 200
    else:
        assert response.status == 400
        assert response.code in {"MANIFEST_INVALID", "MANIFEST_BLOB_UNKNOWN"}


TEMPLATES = (
    head("GET", "/v2/a/manifests/latest"),
    head("PUT", "/v2/a/manifests/x", {"Content-Length": "2", "Content-Type": "x/y"}) + b"{}",
    head("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", {"Content-Length": "5"}) + b"layer",
    head("PATCH", f"/v2/a/blobs/uploads/{UPLOAD}", {"Transfer-Encoding": "chunked"})
    + b"5\r\nlayer\r\n0\r\n\r\n",
    head("GET", f"/v2/a/blobs/{DIGEST}", {"Range": "bytes=0-1"}),
)


@st.composite
def mutated(draw):
    data = bytearray(draw(st.sampled_from(TEMPLATES)))
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("insert", "remove", "replace")))
        piece = draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from((b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"..", b"%00", b"\xff")),
            )
        )
        length = 0 if kind == "insert" else draw(st.integers(1, 8))
        data[position : position + length] = b"" if kind == "remove" else piece
    return bytes(data)


@EXAMPLES
@given(data=st.one_of(mutated(), st.binary(max_size=100)))
@pytest.mark.setups("httpsite-files")
@pytest_twisted.ensureDeferred
async def test_any_bytes_get_a_response_or_a_close(api, outside, data):
    connection = await connect(api.served.port)
    connection.send(data)
    connection.transport.loseWriteConnection()
    await connection.closed
    if connection.received:
        method = data.split(b" ", 1)[0].decode("latin-1")
        received = connection.received
        # There may be several responses; each begins with a status.
        status = int(received.split(b" ", 2)[1])
        assert status < 500 or status in {501, 505}
        if received.count(b"HTTP/1.1 ") == 1:
            assert parse(received, method).status == status
