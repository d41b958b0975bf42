"""Trash, restore, scrub, fsck repair and collection over real object stores.

Each with objects of one part and of many, written by this registry and by Distribution 2.8.3.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from attrs import define, evolve, field

from tests.integration.images import image
from tests.integration.servers import DISTRIBUTION, OURS, Bucket, Launcher
from tests.integration.test_bucket_upkeep import command
from tests.support.s3_servers import BUCKET, client
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout

if TYPE_CHECKING:
    from twisted_registry.testing import Image

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MIB = 1024 * 1024
PART_BYTES = 5 * MIB
#: Both registries store and copy larger objects in parts.
IN_PARTS = {
    "chunksize": PART_BYTES,
    "multipartcopychunksize": PART_BYTES,
    "multipartcopythresholdsize": PART_BYTES,
}
MAINTENANCE = """\
  maintenance:
    uploadpurging: {enabled: false, age: 168h, interval: 24h, dryrun: false}
    gc: {grace: 1s}
    trash: {keep: 168h}
"""
#: Repositories with an image each: a config of one part, and a layer of two.
NAMES = ("kept", "deleted", "scrubbed", "checked")


@define
class Store:
    """A bucket with the images, and access to its objects.

    :ivar bucket: for the registry of this package.
    """

    bucket: Bucket
    images: dict[str, Image] = field(
        factory=lambda: {name: image(name, layers=1, size=6 * MIB) for name in NAMES}
    )

    @property
    def s3(self):
        return client(self.bucket.store)

    def digests(self, name):
        """Return the digests of the config and of the layer of an image."""
        return [Digest.parse(blob.digest) for blob in self.images[name].blobs]

    def key(self, digest):
        return f"{self.bucket.prefix}/{layout.blob_data(digest)}"

    def parts(self, digest):
        """Return the number of parts of a blob, which its ETag ends with."""
        etag = self.s3.head_object(Bucket=BUCKET, Key=self.key(digest))["ETag"].strip('"')
        return int(etag.partition("-")[2] or 1)

    def keys_of(self, digest):
        """Return the keys of all objects with bytes of a blob, wherever they are."""
        keys = self.bucket.keys()
        return [key for key in keys if digest.hex in key and "/blobs/" in key]

    def uploads(self):
        """Return the unfinished multipart uploads."""
        listing = self.s3.list_multipart_uploads(Bucket=BUCKET, Prefix=self.bucket.prefix)
        return listing.get("Uploads", [])

    def damage(self, name):
        """Change a byte of the config and of the layer, which stays an object of parts."""
        config, layer = self.digests(name)
        blobs = [flipped(blob.read()) for blob in self.images[name].blobs]
        self.s3.put_object(Bucket=BUCKET, Key=self.key(config), Body=blobs[0])
        content, place = blobs[1], {"Bucket": BUCKET, "Key": self.key(layer)}
        upload = self.s3.create_multipart_upload(**place)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(content), PART_BYTES), 1):
            part = self.s3.upload_part(
                **place, UploadId=upload, PartNumber=number,
                Body=content[start : start + PART_BYTES],
            )  # fmt: skip
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        self.s3.complete_multipart_upload(
            **place, UploadId=upload, MultipartUpload={"Parts": parts}
        )


def flipped(content):
    """Return a content with one changed byte in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


#: Who pushes, and how this registry copies later: in parts, or by one request.
WRITERS = {OURS: IN_PARTS, DISTRIBUTION: {}}


@pytest.fixture(scope="module", params=["swift", "ceph"])
def object_store(request, object_stores):
    return object_stores.get(request.param)


@pytest.fixture(scope="module", params=WRITERS)
def store(request, object_store, tmp_path_factory):
    """A bucket with the images, as the registry has written it that pushed them."""
    bucket = Bucket(object_store, f"maintenance-{uuid4().hex}", more=IN_PARTS)
    store = Store(evolve(bucket, more=WRITERS[request.param]))
    launcher = Launcher(tmp_path_factory.mktemp("pushing"))
    try:
        remote = launcher.start(request.param, bucket).remote
        for name, each in store.images.items():
            remote.push(name, each, "v1")
    finally:
        launcher.close()
    for name in NAMES:
        config, layer = store.digests(name)
        assert (store.parts(config), store.parts(layer)) == (1, 2)
    # The grace period of the collections.
    time.sleep(1.5)
    return store


@pytest.fixture
def serve(store, launcher):
    """Return a function that starts a registry over the bucket."""
    return lambda: launcher.start(OURS, store.bucket, within=MAINTENANCE)


@pytest.fixture
def run(store, tmp_path):
    """Return a function that runs a command on the bucket."""
    return lambda *words: command(tmp_path, store.bucket, *words, "--json", within=MAINTENANCE)


def collect_deleted(store, serve, run):
    """Delete an image, and collect it."""
    registry = serve()
    path = f"/v2/deleted/manifests/{store.images['deleted'].digest}"
    assert registry.remote.request("DELETE", path).status == 202
    registry.stop()
    status, result = run("garbage-collect", "--delete-untagged")
    assert (status, result["failed"], result["troubled"]) == (0, 0, [])
    assert result["blobs"] == 3


def test_collected_objects_are_restored_from_the_trash_or_expire(store, serve, run):
    collect_deleted(store, serve, run)
    for digest in store.digests("deleted"):
        (key,) = store.keys_of(digest)
        assert layout.TRASH in key

    status, result = run("trash", "restore", "deleted")
    assert (status, result["faults"]) == (0, [])
    registry = serve()
    for name, each in store.images.items():
        registry.remote.assert_holds(name, each, "v1")
    registry.stop()
    for digest in store.digests("deleted"):
        assert store.keys_of(digest) == [store.key(digest)]

    time.sleep(1.5)
    collect_deleted(store, serve, run)
    # Stores round the times of objects to seconds, and what has no age stays in the trash.
    time.sleep(1.5)
    status, result = run("trash", "empty")
    assert (status, result["failed"]) == (0, 0)
    for digest in store.digests("deleted"):
        assert store.keys_of(digest) == []
    registry = serve()
    assert registry.remote.manifest("deleted", "v1").status == 404
    for name in ("kept", "scrubbed", "checked"):
        registry.remote.assert_holds(name, store.images[name], "v1")
    assert store.uploads() == []


def test_damaged_objects_are_quarantined_and_pushed_again(store, serve, run):
    store.damage("scrubbed")
    status, result = run("maintenance", "run", "scrub")
    assert (status, result["result"]["damaged"], result["result"]["quarantined"]) == (0, 2, 2)
    assert result["result"]["affected"] == ["scrubbed:v1"]
    store.damage("checked")
    status, report = run("fsck", "--repair")
    assert (status, report["repaired"], report["failed"]) == (3, 2, 0)
    assert {tag["repository"] for tag in report["tags"]} == {"scrubbed", "checked"}

    registry = serve()
    for name in ("scrubbed", "checked"):
        for digest in store.digests(name):
            assert registry.remote.blob(name, str(digest)).status == 404
            (key,) = store.keys_of(digest)
            assert layout.QUARANTINE in key
        registry.remote.push(name, store.images[name], "v1")
    for name in ("kept", "scrubbed", "checked"):
        registry.remote.assert_holds(name, store.images[name], "v1")
    registry.stop()
    status, report = run("fsck")
    assert (status, report["damaged"], report["tags"]) == (0, 0, [])
    assert store.uploads() == []
