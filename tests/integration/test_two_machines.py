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

from tests.integration.either import Either
from tests.integration.images import image
from tests.integration.servers import OURS, Bucket

pytestmark = pytest.mark.integration


@frozen
class Torn(Either):
    """Pushes each blob in chunks, alternating between the registries."""

    def push_blob(self, name: str, data: bytes) -> str:
        """Push a blob in three chunks; return its digest."""
        return self.push_in_chunks(name, data, len(data) // 3 + 1)


def either_of(servers):
    return Torn("", [served.address for served in servers])


@pytest.fixture(params=["ceph", pytest.param("swift", marks=pytest.mark.nightly)])
def servers(request, launcher):
    store = request.getfixturevalue("object_stores").get(request.param)
    bucket = Bucket(store, f"two-{uuid4().hex}")
    return [launcher.start(OURS, bucket) for _ in range(2)]


def push(either, name, each, tag):
    """Push an image; start again if a request fails."""
    for _ in range(8):
        try:
            either.push(name, each, tag)
        except AssertionError:
            continue
        return
    raise AssertionError(f"{name}:{tag} could not be pushed")


def test_images_pushed_through_both_registries_survive_a_kill(servers):
    either = either_of(servers)
    # Images share layers and repositories; the large one needs a multipart upload.
    images = {(f"a/{number % 4}", f"t{number}"): image(number % 6) for number in range(24)}
    images["large", "1"] = image("large", size=7 * 1024 * 1024)
    stirring = Event()

    def stir():
        """Push and delete one tag continuously."""
        other = image("stirred")
        while not stirring.is_set():
            either.push("a/0", other, "stirred")
            answer = either.request("DELETE", "/v2/a/0/manifests/stirred")
            assert answer.status in {202, 404}, answer

    with ThreadPoolExecutor(6) as pool:
        stirred = pool.submit(stir)
        pushes = [
            pool.submit(push, either, name, each, tag) for (name, tag), each in images.items()
        ]
        time.sleep(1)
        servers[0].kill()
        time.sleep(0.5)
        servers[0].start()
        for one in pushes:
            one.result(100)
        stirring.set()
        with suppress(AssertionError):  # it does not retry the request that the kill interrupted
            stirred.result(100)
    for served in servers:
        for (name, tag), each in images.items():
            served.remote.assert_holds(name, each, tag)
        assert {name for name, _ in images} <= set(served.remote.catalog())


def test_concurrent_pushes_of_one_tag_through_both_registries_succeed(servers):
    either = either_of(servers)
    each, other = image("same"), image("other")
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(either.push, "same", one, "tag") for one in [each, other] * 6]:
            future.result(100)
    for served in servers:
        served.remote.assert_holds("same", each)
        served.remote.assert_holds("same", other)
        served.remote.assert_whole("same", "tag")
