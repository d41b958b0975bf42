"""Manifests: end-3 and end-7."""

from __future__ import annotations

import json

import pytest
import pytest_twisted

from tests.api.manifest_checks import check_created, check_served
from tests.api.setups import SETUPS, SITES
from tests.support.http_client import chunked, connect, head, parse
from tests.support.manifests import (
    CONFIG,
    DOCKER_IMAGE,
    DOCKER_INDEX,
    OCI_IMAGE,
    OCI_INDEX,
    descriptor,
    digest_of,
    image,
    index,
)
from twisted_registry.repository.policy import Policy

OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
NOTHING_THERE = {"mediaType": CONFIG, "digest": digest_of(b"nobody"), "size": 6}


@pytest.mark.parametrize("media_type", [OCI_IMAGE, DOCKER_IMAGE])
@pytest_twisted.ensureDeferred
async def test_an_image_is_served_as_pushed(api, media_type):
    for content in (b"{}", b"one", b"two"):
        await api.push_blob(content)
    content = image(b"{}", b"one", b"two", media_type=media_type)
    check_created(await api.push_manifest(content, media_type=media_type), api, digest_of(content))
    await check_served(api, content, "latest", media_type)


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
@pytest_twisted.ensureDeferred
async def test_an_index_is_served_as_pushed(api, media_type):
    children = []
    for number in range(2):
        config = b'{"n":%d}' % number
        child = image(config)
        await api.push_image(config=config, reference=digest_of(child))
        children.append(descriptor(child, OCI_IMAGE))
    content = index(*children, media_type=media_type)
    check_created(await api.push_manifest(content, media_type=media_type), api, digest_of(content))
    await check_served(api, content, "latest", media_type)
    nested = index(descriptor(content, media_type))
    check_created(
        await api.push_manifest(nested, "nested", media_type=OCI_INDEX), api, digest_of(nested)
    )
    await check_served(api, nested, "nested", OCI_INDEX)
    empty = index()
    check_created(
        await api.push_manifest(empty, "empty", media_type=OCI_INDEX), api, digest_of(empty)
    )


@pytest_twisted.ensureDeferred
async def test_an_artifact_is_served_as_pushed(api):
    await api.push_blob(b"one")
    content = json.dumps(
        {"mediaType": OCI_ARTIFACT, "artifactType": "x/y", "blobs": [descriptor(b"one")]}
    ).encode()
    check_created(
        await api.push_manifest(content, media_type=OCI_ARTIFACT), api, digest_of(content)
    )
    await check_served(api, content, "latest", OCI_ARTIFACT)


@pytest.mark.parametrize(
    "content",
    [
        b'{"mediaType":"application/vnd.example+json"}',
        b'{"any": "thing"}',
        b"{}",
        b"not JSON at all",
        b"\x00\xff",
        b"",
        b'{"layers":"what","subject":7,"annotations":[]}',
    ],
)
@pytest_twisted.ensureDeferred
async def test_unknown_types_are_stored(api, content):
    media_type = "application/vnd.example+json"
    check_created(await api.push_manifest(content, media_type=media_type), api, digest_of(content))
    await check_served(api, content, "latest", media_type)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest_twisted.ensureDeferred
async def test_a_manifest_is_pushed_by_digest(api, algorithm):
    await api.push_blob(b"{}")
    content = image()
    digest = digest_of(content, algorithm)
    check_created(await api.push_manifest(content, digest), api, digest)
    await check_served(api, content, digest, OCI_IMAGE, digest)
    response = await api("GET", "a/tags/list")
    assert response.json()["tags"] == []


@pytest_twisted.ensureDeferred
async def test_a_wrong_digest_is_refused(api):
    await api.push_blob(b"{}")
    for algorithm in ("sha256", "sha512"):
        digest = digest_of(b"other", algorithm)
        response = await api.push_manifest(image(), digest)
        assert (response.status, response.code) == (400, "DIGEST_INVALID")
        assert (await api("GET", f"a/manifests/{digest}")).status == 404


@pytest.mark.parametrize(
    "header",
    [f"{OCI_IMAGE}; charset=utf-8", f"{OCI_IMAGE};x", f"  {OCI_IMAGE}  ;  a=b; c=d"],
)
@pytest_twisted.ensureDeferred
async def test_parameters_of_the_content_type_are_ignored(api, header):
    await api.push_blob(b"{}")
    check_created(await api.push_manifest(image(), media_type=header), api, digest_of(image()))
    await check_served(api, image(), "latest", OCI_IMAGE)


@pytest_twisted.ensureDeferred
async def test_the_media_type_is_found_without_content_type(api):
    await api.push_blob(b"{}")
    for content, media_type in (
        (image(), OCI_IMAGE),
        (image(media_type=DOCKER_IMAGE), DOCKER_IMAGE),
        (image(media_type=None), OCI_IMAGE),
        (index(media_type=None), OCI_INDEX),
        (b'{"mediaType":"x/y"}', "x/y"),
    ):
        check_created(await api.push_manifest(content, media_type=None), api, digest_of(content))
        await check_served(api, content, "latest", media_type)
    for content in (b"{}", b"", b"[1]", b"x"):
        response = await api.push_manifest(content, media_type=None)
        assert (response.status, response.code) == (400, "MANIFEST_INVALID")


@pytest_twisted.ensureDeferred
async def test_a_document_without_media_type_keeps_its_content_type(api):
    await api.push_blob(b"{}")
    for media_type in (OCI_IMAGE, DOCKER_IMAGE, "application/vnd.example+json"):
        content = image(media_type=None, annotations={"of": media_type})
        check_created(
            await api.push_manifest(content, media_type=media_type), api, digest_of(content)
        )
        await check_served(api, content, "latest", media_type)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (image(), OCI_INDEX),
        (image(), DOCKER_IMAGE),
        (index(), OCI_IMAGE),
        (b"{", OCI_IMAGE),
        (b"[]", OCI_IMAGE),
        (b"", OCI_IMAGE),
        (b'{"schemaVersion":2}', OCI_IMAGE),
        (b'{"schemaVersion":1,"config":{},"layers":[]}', OCI_IMAGE),
        (image(media_type=None, manifests=[]), OCI_IMAGE),
        (index(media_type=None, layers=[]), OCI_INDEX),
        (image(layers=[{"mediaType": "x", "digest": "nonsense", "size": 1}]), OCI_IMAGE),
        (image(layers=[{"mediaType": "x", "digest": digest_of(b""), "size": -1}]), OCI_IMAGE),
        (image(subject="x"), OCI_IMAGE),
        (b"[" * 100_000, OCI_IMAGE),
        (image(), "no type"),
        (image(), "/"),
        (image(), "a/b/c"),
        (image(), "a/b, c/d"),
        (image(), "x" * 200 + "/y"),
    ],
)
@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_documents_that_do_not_match_their_type_are_refused(api, content, media_type):
    await api.push_blob(b"{}")
    response = await api.push_manifest(content, media_type=media_type)
    assert (response.status, response.code) == (400, "MANIFEST_INVALID")
    assert (await api("GET", "a/manifests/latest")).code == "MANIFEST_UNKNOWN"


@pytest_twisted.ensureDeferred
async def test_a_manifest_of_maximum_size_is_stored(api):
    content = b'{"mediaType":"x/y","pad":"' + b"x" * (MAX_MANIFEST_BYTES - 28) + b'"}'
    assert len(content) == MAX_MANIFEST_BYTES
    check_created(await api.push_manifest(content, media_type="x/y"), api, digest_of(content))
    await check_served(api, content, "latest", "x/y")


@pytest_twisted.ensureDeferred
async def test_a_larger_manifest_is_refused(api):
    content = b"x" * (MAX_MANIFEST_BYTES + 1)
    response = await api.push_manifest(content, media_type="x/y")
    assert (response.status, response.code) == (413, "SIZE_INVALID")
    response = await api.stream(
        "PUT", "/v2/a/manifests/latest", content[:-10], content[-10:],
        headers={"Content-Type": "x/y"},
    )  # fmt: skip
    assert (response.status, response.code) == (413, "SIZE_INVALID")
    assert (await api("GET", "a/manifests/latest")).status == 404


@pytest.mark.setups(*(name for name in SETUPS if name.startswith("httpsite")))
@pytest_twisted.ensureDeferred
async def test_a_larger_manifest_is_refused_before_its_body_is_read(api):
    connection = await connect(api.served.port)
    headers = {"Content-Length": str(10**12), "Expect": "100-continue"}
    connection.send(head("PUT", "/v2/a/manifests/latest", headers, host=api.host))
    await connection.closed
    assert parse(connection.received, "PUT").status == 413
    assert b"100 Continue" not in connection.received


@pytest_twisted.ensureDeferred
async def test_the_maximum_size_is_configurable(start):
    async with start(policy=Policy(max_manifest_bytes=10)) as api:
        assert (await api.push_manifest(b"x" * 11, media_type="x/y")).status == 413
        assert (await api.push_manifest(b"x" * 10, media_type="x/y")).status == 201


@pytest_twisted.ensureDeferred
async def test_a_chunked_manifest_is_stored(api):
    await api.push_blob(b"{}")
    content = image()
    response = await api.request_target(
        "PUT",
        "/v2/a/manifests/latest",
        {"Content-Type": OCI_IMAGE, "Transfer-Encoding": "chunked"},
        chunked(content[:10], content[10:]),
    )
    check_created(response, api, digest_of(content))
    await check_served(api, content, "latest", OCI_IMAGE)


@pytest_twisted.ensureDeferred
async def test_a_subject_may_be_pushed_after_its_referrer(api):
    await api.push_blob(b"{}")
    later = image(b"{}", annotations={"later": "yes"})
    first = image(b"{}", subject=descriptor(later, OCI_IMAGE))
    response = await api.push_manifest(first, "first")
    check_created(response, api, digest_of(first))
    assert response.get("OCI-Subject") == digest_of(later)
    response = await api.push_manifest(later, "later")
    assert response.get("OCI-Subject") is None
    for media_type in (OCI_INDEX, "application/vnd.example+json"):
        content = index(subject=descriptor(first, OCI_IMAGE), media_type=media_type)
        response = await api.push_manifest(content, "x", media_type=media_type)
        check_created(response, api, digest_of(content))
        assert response.get("OCI-Subject") == digest_of(first)


@pytest_twisted.ensureDeferred
async def test_missing_references_are_named(api):
    await api.push_blob(b"there")
    await api.push_blob(b"elsewhere", "b")
    content = image(b"{}", b"there", b"elsewhere", b"nowhere")
    response = await api.push_manifest(content)
    assert (response.status, response.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    (error,) = response.json()["errors"]
    assert set(error["detail"]["digests"]) == {
        digest_of(missing) for missing in (b"{}", b"elsewhere", b"nowhere")
    }
    content = index(NOTHING_THERE, descriptor(b"there"))
    response = await api.push_manifest(content, media_type=OCI_INDEX)
    (error,) = response.json()["errors"]
    assert error["detail"]["digests"] == [NOTHING_THERE["digest"]]
    for reference in ("latest", digest_of(content)):
        assert (await api("GET", f"a/manifests/{reference}")).status == 404


@pytest_twisted.ensureDeferred
async def test_foreign_layers_may_be_missing(api):
    await api.push_blob(b"{}")
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    content = image(layers=[descriptor(b"x", foreign)])
    assert (await api.push_manifest(content)).status == 201


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_sparse_indexes_are_stored_if_the_policy_allows(start):
    linux = {**NOTHING_THERE, "platform": {"os": "linux", "architecture": "amd64"}}
    windows = {**NOTHING_THERE, "platform": {"os": "windows", "architecture": "amd64"}}
    only_linux = Policy(platforms="list", platform_list=frozenset({("amd64", "linux")}))
    for policy, linux_status, windows_status in (
        (Policy(), 400, 400),
        (Policy(platforms="none"), 201, 201),
        (only_linux, 400, 201),
        (Policy(check_references=False), 201, 201),
    ):
        async with start(policy=policy) as api:
            for child, status in ((linux, linux_status), (windows, windows_status)):
                response = await api.push_manifest(index(child), media_type=OCI_INDEX)
                assert response.status == status, (policy, child)


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_image_classes_of_the_policy(start):
    async with start(policy=Policy(classes=frozenset({"plugin"}))) as api:
        await api.push_blob(b"{}")
        response = await api.push_manifest(image())
        assert (response.status, response.code) == (403, "DENIED")


@pytest_twisted.ensureDeferred
async def test_an_unknown_manifest_is_404(api):
    digest = await api.push_image()
    for path in (
        "a/manifests/nothing",
        "a/manifests/latest/",
        f"a/manifests/{digest_of(b'x')}",
        f"a/manifests/{digest_of(image(), 'sha512')}",
        f"b/manifests/{digest}",
        "nobody/manifests/latest",
        f"a/manifests/{digest_of(b'{}')}",  # a blob, and no manifest
    ):
        if path.endswith("/"):
            assert (await api("GET", path)).status == 200  # a slash at the end says nothing
            continue
        for method in ("GET", "HEAD"):
            response = await api(method, path)
            assert response.status == 404
            assert method == "HEAD" or response.code == "MANIFEST_UNKNOWN"
