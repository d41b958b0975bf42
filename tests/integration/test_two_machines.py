"""Two registries over one bucket, with requests to both in turn, and one of them killed.

Acknowledged content is complete in both, with the right digests.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from uuid import uuid4

import pytest
from attrs import frozen

from tests.integration.images import image
from tests.integration.remote import RoundRobin
from tests.integration.servers import OURS, Bucket

pytestmark = pytest.mark.integration


@frozen
class RoundRobinInChunks(RoundRobin):
    """Pushes each blob in chunks, alternating between the registries."""

    def push_blob(self, name: str, data: bytes) -> str:
        """Push a blob in three chunks; return its digest."""
        return self.push_in_chunks(name, data, len(data) // 3 + 1)


def remote_of(servers):
    return RoundRobinInChunks([served.address for served in servers])


@pytest.fixture(params=["ceph", pytest.param("swift", marks=pytest.mark.nightly)])
def servers(request, launcher):
    store = request.getfixturevalue("object_stores").get(request.param)
    bucket = Bucket(store, f"two-{uuid4().hex}")
    return [launcher.start(OURS, bucket) for _ in range(2)]


def push(remote, name, each, tag):
    """Push an image; start again if a request fails."""
    for _ in range(8):
        try:
            remote.push(name, each, tag)
        except AssertionError:
            continue
        return
    raise AssertionError(f"{name}:{tag} could not be pushed")


def test_images_pushed_through_both_registries_survive_a_kill(servers):
    remote = remote_of(servers)
    # Images share layers and repositories; the large one needs a multipart upload.
    images = {(f"a/{number % 4}", f"t{number}"): image(number % 6) for number in range(24)}
    images["large", "1"] = image("large", size=7 * 1024 * 1024)
    over = Event()

    def push_and_delete():
        """Push and delete one tag continuously."""
        other = image("stirred")
        while not over.is_set():
            remote.push("a/0", other, "stirred")
            response = remote.request("DELETE", "/v2/a/0/manifests/stirred")
            assert response.status in {202, 404}, response

    with ThreadPoolExecutor(6) as pool:
        repeated = pool.submit(push_and_delete)
        pushes = [
            pool.submit(push, remote, name, each, tag) for (name, tag), each in images.items()
        ]
        time.sleep(1)
        servers[0].kill()
        time.sleep(0.5)
        servers[0].start()
        for one in pushes:
            one.result(100)
        over.set()
        with suppress(AssertionError):  # it does not retry the request that the kill interrupted
            repeated.result(100)
    for served in servers:
        for (name, tag), each in images.items():
            served.remote.assert_holds(name, each, tag)
        assert {name for name, _ in images} <= set(served.remote.catalog())


def test_concurrent_pushes_of_one_tag_through_both_registries_succeed(servers):
    remote = remote_of(servers)
    each, other = image("same"), image("other")
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(remote.push, "same", one, "tag") for one in [each, other] * 6]:
            future.result(100)
    for served in servers:
        served.remote.assert_holds("same", each)
        served.remote.assert_holds("same", other)
        served.remote.assert_complete("same", "tag")
