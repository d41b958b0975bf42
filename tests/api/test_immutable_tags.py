"""Immutable tags: they are neither moved nor deleted."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.support.manifests import OCI_IMAGE, digest_of, image
from twisted_registry.repository.policy import Policy, TagSelector

POLICY = Policy(immutable=(TagSelector.parse(["a", "rel/**"], ["v*", "!*-rc*"]),))
OTHER = image(b"{}", b"layer", annotations={"n": "2"})


@pytest_twisted.async_yield_fixture
async def api(start):
    """Serve a registry with immutable tags, and an image with one of them."""
    async with start(policy=POLICY) as api:
        await api.push_image(b"layer", reference="v1")
        yield api


def is_denied(response):
    return (response.status, response.code) == (403, "DENIED")


@pytest_twisted.ensureDeferred
async def test_an_immutable_tag_is_not_moved(api):
    response = await api.push_manifest(OTHER, "v1")
    assert is_denied(response)
    assert response.json()["errors"][0]["detail"] == {"tag": "v1"}
    # A refused push stores nothing.
    assert (await api("GET", f"a/manifests/{digest_of(OTHER)}")).status == 404
    path = f"a/manifests/{digest_of(OTHER)}?tag=new&tag=v1"
    assert is_denied(await api("PUT", path, {"Content-Type": OCI_IMAGE}, OTHER))
    assert (await api("GET", "a/tags/list")).json()["tags"] == ["v1"]
    response = await api("GET", "a/manifests/v1")
    assert response.body == image(b"{}", b"layer")


@pytest_twisted.ensureDeferred
async def test_the_same_manifest_may_be_pushed_again(api):
    content = image(b"{}", b"layer")
    assert (await api.push_manifest(content, "v1")).status == 201
    response = await api.push_manifest(content, "v1", **{"If-None-Match": "*"})
    assert (response.status, response.code) == (412, "PRECONDITION_FAILED")
    matching = {"If-Match": f'"{digest_of(content)}"'}
    assert (await api.push_manifest(content, "v1", **matching)).status == 201
    assert is_denied(await api.push_manifest(OTHER, "v1", **matching))


@pytest_twisted.ensureDeferred
async def test_an_immutable_tag_is_not_deleted(api):
    digest = digest_of(image(b"{}", b"layer"))
    await api.push_manifest(image(b"{}", b"layer"), "also")
    assert is_denied(await api("DELETE", "a/manifests/v1"))
    assert is_denied(await api("DELETE", f"a/manifests/{digest}"))
    assert (await api("GET", "a/tags/list")).json()["tags"] == ["also", "v1"]
    assert (await api("GET", f"a/manifests/{digest}")).status == 200
    assert (await api("DELETE", "a/manifests/v2")).code == "MANIFEST_UNKNOWN"
    assert (await api("DELETE", "a/manifests/also")).status == 202


@pytest.mark.parametrize(
    ("name", "tag"), [("a", "latest"), ("a", "v1-rc1"), ("b", "v1"), ("rel", "v1")]
)
@pytest_twisted.ensureDeferred
async def test_other_tags_are_moved_and_deleted(api, name, tag):
    for content in (image(b"{}", b"layer"), OTHER):
        await api.push_blob(b"{}", name)
        await api.push_blob(b"layer", name)
        assert (await api.push_manifest(content, tag, name)).status == 201
    assert (await api("DELETE", f"{name}/manifests/{tag}")).status == 202
    assert (await api("DELETE", f"{name}/manifests/{digest_of(OTHER)}")).status == 202


@pytest_twisted.ensureDeferred
async def test_patterns_match_nested_repositories(api):
    for name in ("rel/x", "rel/x/y"):
        await api.push_image(b"layer", name=name, reference="v7")
        assert is_denied(await api.push_manifest(OTHER, "v7", name))
