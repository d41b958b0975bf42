"""The commands of the documentation that need client programs, and its configuration of nginx."""

from __future__ import annotations

import json

import pytest

from tests.documentation.pages import each_block
from tests.documentation.shell import CLIENTS, blocks_with_clients, programs_of, run_block
from tests.integration.remote import Remote
from tests.integration.servers import program
from tests.integration.test_behind_nginx import run_nginx
from twisted_registry.testing import Registry

pytestmark = pytest.mark.integration


@each_block(blocks_with_clients(wanted=True))
def test_the_commands_of_a_block_succeed(block, tmp_path, shared_sandbox, request):
    environment = dict(shared_sandbox.environment)
    for name in programs_of(block) & set(CLIENTS):
        program(name)
    if "docker" in programs_of(block):
        request.getfixturevalue("docker")
        environment["DOCKER_HOST"] = f"unix://{shared_sandbox.home}/docker.sock"
    run_block(block, tmp_path, **environment)


def test_nginx_passes_pushes_and_its_own_address(tmp_path):
    content = b"more than nginx accepts by default" * 100_000
    with (
        Registry() as registry,
        run_nginx(tmp_path / "nginx", registry.host, registry.host) as address,
    ):
        remote = Remote(address)
        digest = remote.push_blob("team/app", content)
        assert remote.blob("team/app", digest).body == content
        started = remote.request("POST", "/v2/team/app/blobs/uploads/")
        assert started.headers["location"].startswith(f"http://{address}/v2/team/app/")
        assert json.loads(remote.request("GET", "/v2/").body) == {}
