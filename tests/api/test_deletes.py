"""Deleting: end-9 and end-10, and methods that the configuration disables."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.api.setups import SITES
from tests.support.manifests import OCI_INDEX, descriptor, digest_of, image, index
from twisted_registry.api.context import APISettings
from twisted_registry.storage.memory import MemoryDriver


@pytest_twisted.ensureDeferred
async def test_deleting_a_tag_keeps_its_manifest(api):
    digest = await api.push_image(b"layer")
    await api.push_image(b"layer", reference="other")
    response = await api("DELETE", "a/manifests/latest")
    assert (response.status, response.body) == (202, b"")
    for method in ("GET", "HEAD", "DELETE"):
        response = await api(method, "a/manifests/latest")
        assert response.status == 404
        assert method == "HEAD" or response.code == "MANIFEST_UNKNOWN"
    for reference in ("other", digest):
        assert (await api("GET", f"a/manifests/{reference}")).status == 200
    assert (await api("GET", "a/tags/list")).json()["tags"] == ["other"]


@pytest_twisted.ensureDeferred
async def test_deleting_a_manifest_deletes_its_tags(api):
    digest = await api.push_image(b"layer")
    await api.push_image(b"layer", reference="also")
    other = await api.push_image(b"other", reference="other")
    response = await api("DELETE", f"a/manifests/{digest}")
    assert (response.status, response.body) == (202, b"")
    for reference in (digest, "latest", "also"):
        assert (await api("GET", f"a/manifests/{reference}")).code == "MANIFEST_UNKNOWN"
        assert (await api("DELETE", f"a/manifests/{reference}")).code == "MANIFEST_UNKNOWN"
    assert (await api("GET", "a/tags/list")).json()["tags"] == ["other"]
    assert (await api("GET", f"a/manifests/{other}")).status == 200
    assert (await api("GET", f"a/blobs/{digest_of(b'layer')}")).status == 200
    assert await api.push_image(b"layer") == digest
    assert (await api("GET", "a/manifests/latest")).status == 200


@pytest_twisted.ensureDeferred
async def test_deleting_an_index_keeps_its_children(api):
    child = await api.push_image(b"layer")
    content = index(descriptor(image(b"{}", b"layer"), OCI_INDEX))
    await api.push_manifest(content, "index", media_type=OCI_INDEX)
    assert (await api("DELETE", f"a/manifests/{digest_of(content)}")).status == 202
    assert (await api("GET", f"a/manifests/{child}")).status == 200


@pytest_twisted.ensureDeferred
async def test_a_manifest_of_another_algorithm_is_deleted(api):
    await api.push_image()
    digest = digest_of(image(), "sha512")
    await api.push_manifest(image(), digest)
    assert (await api("DELETE", f"a/manifests/{digest}")).status == 202
    assert (await api("GET", f"a/manifests/{digest}")).status == 404
    assert (await api("GET", "a/manifests/latest")).status == 200


@pytest_twisted.ensureDeferred
async def test_a_blob_of_a_manifest_may_be_deleted(api):
    """The client decides; the next push of the manifest reports the missing blob."""
    await api.push_image(b"layer")
    assert (await api("DELETE", f"a/blobs/{digest_of(b'layer')}")).status == 202
    response = await api.push_manifest(image(b"{}", b"layer"))
    assert response.code == "MANIFEST_BLOB_UNKNOWN"


@pytest_twisted.ensureDeferred
async def test_deleting_unknown_content_is_404(api):
    await api.push_image()
    for path, code in (
        ("a/manifests/none", "MANIFEST_UNKNOWN"),
        (f"a/manifests/{digest_of(b'x')}", "MANIFEST_UNKNOWN"),
        (f"a/blobs/{digest_of(b'x')}", "BLOB_UNKNOWN"),
        ("nobody/manifests/latest", "MANIFEST_UNKNOWN"),
    ):
        response = await api("DELETE", path)
        assert (response.status, response.code) == (404, code)


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_deletes_are_405_when_disabled(start):
    async with start(settings=APISettings(delete=False)) as api:
        digest = await api.push_image(b"layer")
        for path, allowed in (
            ("a/manifests/latest", "GET, HEAD, PUT, OPTIONS"),
            (f"a/manifests/{digest}", "GET, HEAD, PUT, OPTIONS"),
            ("a/manifests/none", "GET, HEAD, PUT, OPTIONS"),
            (f"a/blobs/{digest_of(b'layer')}", "GET, HEAD, OPTIONS"),
            (f"a/blobs/{digest_of(b'none')}", "GET, HEAD, OPTIONS"),
        ):
            response = await api("DELETE", path)
            assert (response.status, response.code) == (405, "UNSUPPORTED")
            assert response.get("Allow") == allowed
        assert (await api("GET", "a/manifests/latest")).status == 200
        assert (await api("GET", f"a/blobs/{digest_of(b'layer')}")).status == 200
        # Uploads can be cancelled nevertheless.
        assert (await api.request_target("DELETE", await api.start_upload())).status == 204


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_writes_are_405_in_a_read_only_registry(start, clock):
    driver = MemoryDriver(clock)
    async with start(driver=driver) as api:
        digest = await api.push_image(b"layer")
        upload = (await api.start_upload()).split("/v2/")[1]
    async with start(driver=driver, settings=APISettings(read_only=True)) as api:
        for method, path, allowed in (
            ("PUT", "a/manifests/new", "GET, HEAD, OPTIONS"),
            ("DELETE", "a/manifests/latest", "GET, HEAD, OPTIONS"),
            ("DELETE", f"a/manifests/{digest}", "GET, HEAD, OPTIONS"),
            ("DELETE", f"a/blobs/{digest_of(b'layer')}", "GET, HEAD, OPTIONS"),
            ("POST", "a/blobs/uploads/", "OPTIONS"),
            ("POST", f"b/blobs/uploads/?mount={digest_of(b'layer')}&from=a", "OPTIONS"),
            ("PATCH", upload, "GET, HEAD, OPTIONS"),
            ("PUT", f"{upload}&digest={digest_of(b'')}", "GET, HEAD, OPTIONS"),
            ("DELETE", upload, "GET, HEAD, OPTIONS"),
        ):
            response = await api(method, path, body=None if method == "DELETE" else b"x")
            assert (response.status, response.code) == (405, "UNSUPPORTED"), path
            assert response.get("Allow") == allowed
            assert (await api("OPTIONS", path)).get("Allow") == allowed
        for path in (
            "",
            "_catalog",
            "a/tags/list",
            "a/manifests/latest",
            f"a/blobs/{digest_of(b'layer')}",
            f"a/referrers/{digest}",
        ):
            assert (await api("GET", path)).status == 200
        assert (await api("GET", "_catalog")).json()["repositories"] == ["a"]
