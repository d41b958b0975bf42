"""Collections by command beside two busy registries over one bucket."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import uuid4

import pytest

from tests.integration.images import image
from tests.integration.servers import OURS, Bucket
from tests.integration.test_bucket_upkeep import command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

MAINTENANCE = """\
  maintenance:
    uploadpurging: {enabled: false, age: 168h, interval: 24h, dryrun: false}
    gc: {grace: 1s}
"""
#: Threads that push and pull through each registry, by store. Swift takes several times as long.
CLIENTS = {"ceph": 4, "swift": 2}


@pytest.fixture(params=["ceph", pytest.param("swift", marks=pytest.mark.nightly)])
def bucket(request, object_stores):
    return Bucket(object_stores.get(request.param), f"beside-{uuid4().hex}")


@pytest.mark.parametrize("runs", [2, pytest.param(10, marks=pytest.mark.nightly)])
def test_each_collection_is_acknowledged_by_two_busy_registries(launcher, bucket, tmp_path, runs):
    registries = [launcher.start(OURS, bucket, within=MAINTENANCE) for _ in range(2)]
    kept = image("kept")
    registries[0].remote.push("kept", kept, "v1")
    removed = 0
    over, pushed, count = Event(), [], CLIENTS[bucket.store.kind]

    def keep_busy(registry, client):
        number = 0
        while not over.is_set():
            number += 1
            name, each = f"busy/{client}", image((registry.port, client, number), size=200_000)
            registry.remote.push(name, each, "latest")
            registry.remote.assert_holds(name, each, "latest")
            registry.remote.assert_holds("kept", kept, "v1")
            pushed.append(name)
            # Garbage for the next collection.
            response = registry.remote.request("DELETE", f"/v2/{name}/manifests/{each.digest}")
            assert response.status == 202, response

    with ThreadPoolExecutor(2 * count) as pool:
        clients = [
            pool.submit(keep_busy, registry, f"{number}-{client}")
            for number, registry in enumerate(registries)
            for client in range(count)
        ]
        try:
            for run in range(runs):
                time.sleep(2)
                status, result = command(
                    tmp_path, bucket, "garbage-collect", "--json", within=MAINTENANCE
                )
                assert (status, result["failed"], result["troubled"]) == (0, 0, []), run
                removed += result["blobs"]
        finally:
            over.set()
        for client in clients:
            client.result(100)
    assert removed > 0
    assert len(pushed) > 2 * count
    for registry in registries:
        registry.remote.assert_holds("kept", kept, "v1")
