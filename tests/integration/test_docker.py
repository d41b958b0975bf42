"""docker: pushes, pulls, mounts, tags, platforms, manifest lists."""

from __future__ import annotations

import json
import re

import pytest

from tests.integration.images import image, index
from tests.support.manifests import digest_of
from twisted_registry.oci.manifest import DOCKER_IMAGE, DOCKER_INDEX
from twisted_registry.testing import write_layout

pytestmark = pytest.mark.integration


@pytest.fixture
def saved(tmp_path):
    """An archive with one image, ``saved:1``, of three layers."""
    archive = tmp_path / "saved.tar"
    write_layout(archive, {"saved:1": image("docker", layers=3)})
    return archive


def test_docker_pushes_mounts_and_pulls_layers(registry, docker, saved):
    docker("load", "--input", saved)
    first, second = registry.image("docker/first"), registry.image("docker/second")

    docker("tag", "saved:1", first)
    pushed = docker("push", first)
    assert pushed.count(": Pushed") == 3, pushed
    digest = re.search(r"digest: (sha256:\w+)", pushed).group(1)
    stored = registry.remote.assert_complete("docker/first", "1")
    assert digest_of(stored.body) == digest
    assert stored.headers["content-type"] == DOCKER_IMAGE

    docker("tag", "saved:1", second)
    mounted = docker("push", second)
    assert mounted.count("Mounted from docker/first") == 3, mounted
    assert registry.remote.assert_complete("docker/second", "1").body == stored.body

    again = docker("push", second)
    assert again.count("Layer already exists") == 3, again

    before = docker("image", "inspect", "--format={{.Id}}", "saved:1")
    docker("rmi", first, second, "saved:1")
    pulled = docker("pull", second)
    assert f"Digest: {digest}" in pulled
    assert docker("image", "inspect", "--format={{.Id}}", second) == before
    by_digest = f"{registry.address}/docker/first@{digest}"
    assert "newer image" in docker("pull", by_digest)
    docker("rmi", second, by_digest)


def test_all_tags_are_pushed_and_pulled(registry, docker, saved):
    docker("load", "--input", saved)
    name = f"{registry.address}/docker/tags"
    for tag in ("1", "2", "3"):
        docker("tag", "saved:1", f"{name}:{tag}")
    docker("push", "--all-tags", name)
    assert sorted(registry.remote.tags("docker/tags")) == ["1", "2", "3"]
    docker("rmi", *(f"{name}:{tag}" for tag in ("1", "2", "3")), "saved:1")
    docker("pull", "--all-tags", name)
    docker("rmi", *(f"{name}:{tag}" for tag in ("1", "2", "3")))


@pytest.mark.parametrize("as_docker", [False, True], ids=["oci", "docker"])
def test_docker_pulls_one_platform_of_an_index(registry, docker, as_docker):
    made = index("docker-platform", docker=as_docker)
    name = f"docker/platform-{'docker' if as_docker else 'oci'}"
    registry.remote.push(name, made, "1")
    pulled = docker("pull", "--platform=linux/arm64", registry.image(name))
    assert f"Digest: {made.digest}" in pulled
    shown = json.loads(docker("image", "inspect", registry.image(name)))
    assert shown[0]["Architecture"] == "arm64"
    docker("rmi", registry.image(name))


def test_docker_pushes_a_manifest_list(registry, docker):
    made = index("docker-list", docker=True)
    for child, architecture in zip(made.images, ("amd64", "arm64"), strict=True):
        registry.remote.push("docker/list", child, architecture)
    target = registry.image("docker/list")
    sources = [registry.image("docker/list", each) for each in ("amd64", "arm64")]
    docker("manifest", "create", "--insecure", target, *sources)
    docker("manifest", "push", "--insecure", target)
    stored = registry.remote.assert_complete("docker/list", "1")
    assert stored.headers["content-type"] == DOCKER_INDEX
    assert {entry["digest"] for entry in stored.json()["manifests"]} == {
        child.digest for child in made.images
    }
