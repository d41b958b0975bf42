"""Tags that, once they are there, are neither moved nor deleted."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.support.manifests import OCI_IMAGE, digest_of, image
from twisted_registry.repository.policy import Policy, TagSelector

POLICY = Policy(immutable=(TagSelector.parse(["a", "rel/**"], ["v*", "!*-rc*"]),))
OTHER = image(b"{}", b"layer", annotations={"n": "2"})


@pytest_twisted.async_yield_fixture
async def guarded(start):
    """A registry with such tags, and an image that one of them names."""
    async with start(policy=POLICY) as api:
        await api.push_image(b"layer", reference="v1")
        yield api


def is_denied(response):
    return (response.status, response.code) == (403, "DENIED")


@pytest_twisted.ensureDeferred
async def test_an_immutable_tag_is_not_moved(guarded):
    response = await guarded.push_manifest(OTHER, "v1")
    assert is_denied(response)
    assert response.json()["errors"][0]["detail"] == {"tag": "v1"}
    # Nor is anything of such a push kept.
    assert (await guarded("GET", f"a/manifests/{digest_of(OTHER)}")).status == 404
    path = f"a/manifests/{digest_of(OTHER)}?tag=new&tag=v1"
    assert is_denied(await guarded("PUT", path, {"Content-Type": OCI_IMAGE}, OTHER))
    assert (await guarded("GET", "a/tags/list")).json()["tags"] == ["v1"]
    held = await guarded("GET", "a/manifests/v1")
    assert held.body == image(b"{}", b"layer")


@pytest_twisted.ensureDeferred
async def test_the_same_manifest_may_be_pushed_again(guarded):
    content = image(b"{}", b"layer")
    assert (await guarded.push_manifest(content, "v1")).status == 201
    response = await guarded.push_manifest(content, "v1", **{"If-None-Match": "*"})
    assert (response.status, response.code) == (412, "PRECONDITION_FAILED")
    matching = {"If-Match": f'"{digest_of(content)}"'}
    assert (await guarded.push_manifest(content, "v1", **matching)).status == 201
    assert is_denied(await guarded.push_manifest(OTHER, "v1", **matching))


@pytest_twisted.ensureDeferred
async def test_an_immutable_tag_is_not_deleted(guarded):
    digest = digest_of(image(b"{}", b"layer"))
    await guarded.push_manifest(image(b"{}", b"layer"), "also")
    assert is_denied(await guarded("DELETE", "a/manifests/v1"))
    assert is_denied(await guarded("DELETE", f"a/manifests/{digest}"))
    assert (await guarded("GET", "a/tags/list")).json()["tags"] == ["also", "v1"]
    assert (await guarded("GET", f"a/manifests/{digest}")).status == 200
    assert (await guarded("DELETE", "a/manifests/v2")).code == "MANIFEST_UNKNOWN"
    assert (await guarded("DELETE", "a/manifests/also")).status == 202


@pytest.mark.parametrize(
    ("name", "tag"), [("a", "latest"), ("a", "v1-rc1"), ("b", "v1"), ("rel", "v1")]
)
@pytest_twisted.ensureDeferred
async def test_other_tags_are_moved_and_deleted(guarded, name, tag):
    for content in (image(b"{}", b"layer"), OTHER):
        await guarded.push_blob(b"{}", name)
        await guarded.push_blob(b"layer", name)
        assert (await guarded.push_manifest(content, tag, name)).status == 201
    assert (await guarded("DELETE", f"{name}/manifests/{tag}")).status == 202
    assert (await guarded("DELETE", f"{name}/manifests/{digest_of(OTHER)}")).status == 202


@pytest_twisted.ensureDeferred
async def test_patterns_match_nested_repositories(guarded):
    for name in ("rel/x", "rel/x/y"):
        await guarded.push_image(b"layer", name=name, reference="v7")
        assert is_denied(await guarded.push_manifest(OTHER, "v7", name))
