"""Deleting a whole repository: ``DELETE /v2/_repository/<name>``."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.api.setups import SITES
from tests.support.manifests import OCI_IMAGE, OCI_INDEX, descriptor, digest_of, image, index
from twisted_registry.api.context import APISettings
from twisted_registry.repository.policy import Policy, TagSelector
from twisted_registry.storage.memory import MemoryDriver


async def names(api):
    return (await api("GET", "_catalog")).json()["repositories"]


@pytest_twisted.ensureDeferred
async def test_a_deleted_repository_has_no_content(api):
    digest = await api.push_image(b"layer")
    await api.push_image(b"other", reference="v2")
    signature = image(b"{}", subject=descriptor(image(b"{}", b"layer"), OCI_IMAGE))
    await api.push_manifest(signature, "signature")
    await api.push_manifest(
        index(descriptor(image(b"{}", b"layer"), OCI_IMAGE)), "i", "a", OCI_INDEX
    )
    upload = await api.start_upload()
    for name in ("a/below", "b"):
        await api.push_image(b"layer", name=name)
    response = await api("DELETE", "_repository/a")
    assert (response.status, response.body) == (202, b"")
    assert await names(api) == ["a/below", "b"]
    for path, code in (
        ("a/tags/list", "NAME_UNKNOWN"),
        ("a/manifests/latest", "MANIFEST_UNKNOWN"),
        (f"a/manifests/{digest}", "MANIFEST_UNKNOWN"),
        (f"a/blobs/{digest_of(b'layer')}", "BLOB_UNKNOWN"),
    ):
        assert (await api("GET", path)).code == code
    assert (await api("GET", f"a/referrers/{digest}")).json()["manifests"] == []
    response = await api.request_target("PUT", f"{upload}&digest={digest_of(b'x')}", body=b"x")
    assert (response.status, response.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    for name in ("a/below", "b"):
        assert (await api("GET", f"{name}/manifests/latest")).status == 200
        assert (await api("GET", f"{name}/blobs/{digest_of(b'layer')}")).body == b"layer"
    # The repository can be pushed again.
    assert await api.push_image(b"layer") == digest
    assert await names(api) == ["a", "a/below", "b"]


@pytest_twisted.ensureDeferred
async def test_a_repository_with_blobs_only_is_deleted(api):
    await api.push_blob(b"x", "a/b/c")
    assert (await api("DELETE", "_repository/a/b/c")).status == 202
    assert await names(api) == []
    assert (await api("DELETE", "_repository/a/b/c")).code == "NAME_UNKNOWN"


@pytest.mark.setups(*SITES)
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("none", 404, "NAME_UNKNOWN"),
        ("a/b", 404, "NAME_UNKNOWN"),
        ("manifests/latest", 404, "NAME_UNKNOWN"),
        ("A", 400, "NAME_INVALID"),
        ("a//b", 400, "NAME_INVALID"),
        ("_catalog", 400, "NAME_INVALID"),
        ("", 404, "UNSUPPORTED"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_invalid_or_unknown_repository_is_refused(api, path, status, code):
    await api.push_image(name="a/b/c")
    response = await api("DELETE", f"_repository/{path}")
    assert (response.status, response.code) == (status, code)


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_the_endpoint_allows_delete_only(api):
    await api.push_image()
    for method in ("GET", "PUT", "POST", "PATCH"):
        response = await api(method, "_repository/a", body=b"")
        assert (response.status, response.code) == (405, "UNSUPPORTED")
        assert response.get("Allow") == "DELETE, OPTIONS"


@pytest.mark.setups("httpsite-memory")
@pytest.mark.parametrize("settings", [APISettings(delete=False), APISettings(read_only=True)])
@pytest_twisted.ensureDeferred
async def test_the_extension_is_absent_when_deletes_are_disabled(start, clock, settings):
    driver = MemoryDriver(clock)
    async with start(driver=driver) as api:
        await api.push_image()
        (extension,) = (await api("GET", "_oci/ext/discover")).json()["extensions"]
        assert extension["endpoints"] == ["_repository/<name>"]
    async with start(driver=driver, settings=settings) as api:
        response = await api("DELETE", "_repository/a")
        assert (response.status, response.code) == (405, "UNSUPPORTED")
        assert (await api("GET", "a/manifests/latest")).status == 200
        assert (await api("GET", "_oci/ext/discover")).json() == {"extensions": []}


@pytest_twisted.ensureDeferred
async def test_a_repository_with_an_immutable_tag_is_not_deleted(start):
    policy = Policy(immutable=(TagSelector.parse(["a", "c"], ["v*"]),))
    async with start(policy=policy) as api:
        for name, tag in (("a", "v1"), ("a", "latest"), ("b", "v1"), ("c", "latest")):
            await api.push_image(b"layer", name=name, reference=tag)
        response = await api("DELETE", "_repository/a")
        assert (response.status, response.code) == (403, "DENIED")
        assert response.json()["errors"][0]["detail"] == {"tag": "v1"}
        assert (await api("GET", "a/tags/list")).json()["tags"] == ["latest", "v1"]
        assert (await api("GET", f"a/blobs/{digest_of(b'layer')}")).status == 200
        for name in ("b", "c"):
            assert (await api("DELETE", f"_repository/{name}")).status == 202
        assert await names(api) == ["a"]
