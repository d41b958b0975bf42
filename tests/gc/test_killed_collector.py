"""A registry process beside a collector process that hangs with a condemned list, and is killed."""

from __future__ import annotations

import subprocess
import sys
from threading import Thread

import pytest

from tests.commands.image_push import push
from tests.support.manifests import digest_of
from tests.support.processes import (
    SERVE,
    RegistryProcess,
    environment,
    wait_until,
    write_configuration,
)
from twisted_registry.repository.liveness import process_identity

#: Publishes a list of one blob and of manifests of the repository ``a``, and hangs.
COLLECTOR = """
import sys
from pathlib import Path
from twisted_registry.gc.delete_list import DeleteList, Phase
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout

root, blob, *manifests = sys.argv[1:]
condemned = DeleteList(
    "list", Phase.CONDEMNED, 600.0, frozenset([Digest.parse(blob)]),
    frozenset(("a", Digest.parse(manifest)) for manifest in manifests),
)
path = Path(root, layout.DELETE_LIST)
path.parent.mkdir(parents=True, exist_ok=True)
path.write_bytes(condemned.to_bytes())
print("published", flush=True)
sys.stdin.read()
"""
LAYER = b"condemned"

pytestmark = pytest.mark.skipif(not process_identity(), reason="needs /proc")


@pytest.fixture
def server(tmp_path):
    path = write_configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path, REGISTRY_STORAGE_DELETE_ENABLED="true") as one:
        yield one


@pytest.fixture
def collector(tmp_path, server):
    """A function that publishes a list; returns the process, once the registry obeys."""
    started = []

    def publish(blob, *manifests):
        command = [sys.executable, "-c", COLLECTOR, str(tmp_path / "store"), blob, *manifests]
        started.append(
            subprocess.Popen(
                command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        assert started[0].stdout.readline() == "published\n"
        wait_until(lambda: server.ask("HEAD", f"/v2/a/blobs/{blob}")[0].status == 404)
        return started[0]

    yield publish
    for process in started:
        process.kill()
        process.communicate()


def test_push_of_what_a_killed_collector_condemned_succeeds(server, collector):
    push(server, "v1", LAYER)
    process = collector(digest_of(LAYER))
    pushed = []
    pushing = Thread(target=lambda: pushed.append(push(server, "v2", LAYER)))
    pushing.start()
    pushing.join(3)
    assert pushed == []
    process.kill()
    process.wait()
    # Without a look at the process, it would be refused after 20 seconds.
    pushing.join(60)
    assert len(pushed) == 1


def test_head_by_digest_of_what_a_hanging_collector_condemned_waits(server, collector):
    manifest = push(server, "v1", LAYER)
    process = collector(digest_of(LAYER), manifest)
    path = f"/v2/a/manifests/{manifest}"
    answers = []
    asking = Thread(target=lambda: answers.append(server.ask("HEAD", path)[0].status))
    asking.start()
    assert server.ask("GET", path)[0].status == 200
    assert server.ask("HEAD", "/v2/a/manifests/v1")[0].status == 200
    asking.join(1)
    assert answers == []
    process.kill()
    process.wait()
    asking.join(60)
    assert answers == [200]


def test_what_a_hanging_collector_condemned_can_be_deleted(server, collector):
    manifest = push(server, "v1", LAYER)
    collector(digest_of(LAYER), manifest)
    for path in (f"/v2/a/manifests/{manifest}", f"/v2/a/blobs/{digest_of(LAYER)}"):
        for status, found in ((202, 404), (404, 404)):
            assert server.ask("DELETE", path)[0].status == status
            assert server.ask("GET", path)[0].status == found
