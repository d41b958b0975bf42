"""If-None-Match and Accept of manifest pulls, and the image of an index for old clients."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.api.setups import SITES
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


@pytest_twisted.ensureDeferred
async def test_if_none_match_is_answered_304(api):
    digest = await api.push_image()
    for reference in ("latest", digest):
        for method in ("GET", "HEAD"):
            for condition, status in (
                (f'"{digest}"', 304),
                (digest, 304),
                (f'W/"{digest}"', 304),
                ("*", 304),
                ('"sha256:x"', 200),
            ):
                response = await api(
                    method, f"a/manifests/{reference}", {"If-None-Match": condition}
                )
                assert response.status == status, condition
                assert response.get("ETag") == f'"{digest}"'
                assert response.get("Docker-Content-Digest") == digest
                if status == 304:
                    assert (response.body, response.get("Content-Type")) == (b"", None)


def platform(content, os, architecture, media_type=OCI_IMAGE):
    return descriptor(content, media_type, platform={"os": os, "architecture": architecture})


@pytest.mark.parametrize("index_type", [OCI_INDEX, DOCKER_INDEX])
@pytest_twisted.ensureDeferred
async def test_a_client_without_indexes_gets_its_image(api, index_type):
    """A client that accepts only images gets a matching one, otherwise the index itself."""
    await api.push_blob(b"{}")
    arm, amd = (
        image(media_type=DOCKER_IMAGE, annotations={"for": name}) for name in ("arm64", "amd64")
    )
    for content in (arm, amd):
        await api.push_manifest(content, digest_of(content), media_type=DOCKER_IMAGE)
    content = index(
        platform(arm, "linux", "arm64", DOCKER_IMAGE),
        platform(amd, "linux", "amd64", DOCKER_IMAGE),
        media_type=index_type,
    )
    await api.push_manifest(content, media_type=index_type)
    for accept, expected in (
        (None, content),
        ("*/*", content),
        ("application/*", content),
        (index_type, content),
        (f"{DOCKER_IMAGE}, {index_type}", content),
        (f"{DOCKER_IMAGE}, {index_type};q=0.1", content),
        (DOCKER_IMAGE, amd),
        (f"{DOCKER_IMAGE}, {index_type};q=0", amd),
        (OCI_IMAGE, content),
        ("application/vnd.docker.distribution.manifest.v1+json", content),
        ("text/html", content),
    ):
        for method in ("GET", "HEAD"):
            response = await api(method, "a/manifests/latest", {"Accept": accept})
            assert response.status == 200
            assert response.get("Docker-Content-Digest") == digest_of(expected), accept
            assert response.get("Content-Type") == (
                index_type if expected is content else DOCKER_IMAGE
            )
            assert method == "HEAD" or response.body == expected
        response = await api("GET", f"a/manifests/{digest_of(content)}", {"Accept": accept})
        assert response.body == content, accept


@pytest_twisted.ensureDeferred
async def test_an_index_without_an_accepted_image_is_served_itself(api):
    await api.push_blob(b"{}")
    content = index(platform(image(), "linux", "arm64"), {"x": "y", **descriptor(b"{}", CONFIG)})
    await api.push_manifest(image(), "x")
    await api.push_manifest(content, media_type=OCI_INDEX)
    response = await api("GET", "a/manifests/latest", {"Accept": OCI_IMAGE})
    assert (response.status, response.body) == (200, content)


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_an_index_with_a_missing_child_is_served_itself(start):
    async with start(policy=Policy(platforms="none")) as api:
        content = index(platform(image(), "linux", "amd64"))
        await api.push_manifest(content, media_type=OCI_INDEX)
        response = await api("GET", "a/manifests/latest", {"Accept": OCI_IMAGE})
        assert (response.status, response.body) == (200, content)


@pytest_twisted.ensureDeferred
async def test_an_image_is_served_whatever_is_accepted(api):
    """A manifest that is no index is served whatever the client accepts."""
    digest = await api.push_image()
    for accept in (DOCKER_IMAGE, OCI_INDEX, "text/html", "nonsense", "*/*;q=0"):
        response = await api("GET", "a/manifests/latest", {"Accept": accept})
        assert (response.status, response.get("Docker-Content-Digest")) == (200, digest)
