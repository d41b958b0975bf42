"""The drop-in for the registry class of testcontainers."""

from __future__ import annotations

import urllib.request
from urllib.error import HTTPError

import pytest

from twisted_registry.testing.testcontainers import DockerRegistryContainer


def ask(url, method="GET"):
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status
    except HTTPError as error:
        error.close()
        return error.code


def test_it_serves_until_the_block_ends():
    with DockerRegistryContainer("registry:2.8", name="mine").with_exposed_ports(5000) as container:
        host = f"{container.get_container_host_ip()}:{container.get_exposed_port(container.port)}"
        assert container.get_registry() == host
        assert ask(f"http://{host}/v2/_catalog") == 200
    with pytest.raises(RuntimeError, match="start"):
        container.get_registry()


def test_a_user():
    with DockerRegistryContainer(username="ada", password="secret") as container:
        assert ask(f"http://{container.get_registry()}/v2/") == 401
        assert container.registry.auth == ("ada", "secret")


@pytest.mark.parametrize(("value", "status"), [(None, 405), ("true", 404)])
def test_variables(value, status):
    container = DockerRegistryContainer().with_kwargs(network="host").with_name("mine")
    container.with_envs(REGISTRY_HTTP_ADDR="0.0.0.0:5000")
    if value is not None:
        container.with_env("REGISTRY_STORAGE_DELETE_ENABLED", value)
    with container:
        url = f"http://{container.get_registry()}/v2/a/manifests/sha256:{'0' * 64}"
        assert ask(url, "DELETE") == status


def test_volumes(tmp_path):
    configuration = tmp_path / "config.yml"
    configuration.write_text("version: 0.1\nhttp:\n  headers: {X-Test: [here]}\n")
    container = DockerRegistryContainer()
    container.with_volume_mapping(str(tmp_path / "images"), "/var/lib/registry", "rw")
    container.with_volume_mapping(str(configuration), "/etc/docker/registry/config.yml")
    with container, urllib.request.urlopen(f"http://{container.get_registry()}/v2/") as response:
        assert response.headers["X-Test"] == "here"
        assert (tmp_path / "images").is_dir()
    with pytest.raises(ValueError, match="/var/lib/registry"):
        container.with_volume_mapping("/a", "/b")
