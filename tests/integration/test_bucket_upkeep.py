"""fsck, and retention by pulls, over real object stores."""

from __future__ import annotations

import json
import sys
from uuid import uuid4

import pytest

from tests.integration.images import image
from tests.integration.servers import OURS, Bucket, written
from tests.support.processes import free_port, run
from tests.support.s3_servers import BUCKET, client
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout

pytestmark = pytest.mark.integration

NAMES = ("missing", "truncated", "unnamed", "emptied")
#: A digest that the tag of ``unnamed`` names and the store does not have.
GONE = f"sha256:{'1' * 64}"
RETENTION = """\
  maintenance:
    retention:
      rules:
      - repositories: ['**']
        tags: ['*']
        pulledwithin: 720h
"""


#: Swift takes several times as long for each request.
SWIFT = pytest.param("swift", marks=[pytest.mark.nightly, pytest.mark.timeout(300)])


@pytest.fixture(params=["ceph", SWIFT])
def bucket(request, object_stores):
    return Bucket(object_stores.get(request.param), f"upkeep-{uuid4().hex}")


class Content:
    """The content of a bucket, by the paths of the registry."""

    def __init__(self, bucket):
        self.prefix = bucket.prefix
        self.client = client(bucket.store)

    def put(self, path, content):
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}", Body=content)

    def remove(self, path):
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")

    def tags(self):
        """Return paths with ETags, without the records of processes."""
        pages = self.client.get_paginator("list_objects_v2")
        listing = pages.paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        return {
            one["Key"].removeprefix(f"{self.prefix}/"): one["ETag"]
            for page in listing
            for one in page.get("Contents", [])
            if "/twisted-registry/collector/" not in one["Key"]
        }


def command(work, bucket, *words, within=""):
    """Run a command on the bucket; return its exit status and its JSON output."""
    config = written(work, OURS, bucket, free_port(), within=within)
    status, out, err = run(
        sys.executable, "-m", "twisted_registry", *words, config, cwd=work, timeout_s=240
    )
    assert out, err
    return status, json.loads(out)


def findings(report):
    return {(one["kind"], one["path"]) for one in report["findings"]}


def affected_repositories(report):
    return {tag["repository"] for tag in report["tags"]}


def test_fsck_finds_and_repairs_damage_in_a_bucket(launcher, bucket, tmp_path):
    images = {name: image(name) for name in NAMES}
    served = launcher.start(OURS, bucket)
    for name, each in images.items():
        served.remote.push(name, each, "v1")
    served.stop()
    content = Content(bucket)
    layers = {name: each.layers[-1].digest for name, each in images.items()}
    lost, torn = (layout.blob_data(Digest.parse(layers[name])) for name in ("missing", "truncated"))
    unnamed, emptied = (layout.tag_current_link(name, "v1") for name in ("unnamed", "emptied"))
    unlinked = layout.layer_link("emptied", Digest.parse(layers["emptied"]))
    intact = content.tags()
    content.remove(lost)
    content.put(torn, images["truncated"].layers[-1].read()[:-1])
    content.put(unnamed, GONE.encode())
    content.put(emptied, b"")
    content.put(unlinked, b"")
    before = content.tags()
    status, report = command(tmp_path, bucket, "fsck", "--json")
    assert status == 3
    expected = {
        ("corrupt blob", torn),
        ("dangling link", unnamed),
        ("empty link", emptied),
        ("empty link", unlinked),
    }
    assert findings(report) > expected
    assert affected_repositories(report) == set(NAMES)
    assert content.tags() == before

    status, report = command(tmp_path, bucket, "fsck", "--repair", "--json")
    assert status == 3
    assert report["repaired"] == 3
    after = content.tags()
    assert (after[emptied], after[unlinked]) == (intact[emptied], intact[unlinked])
    assert torn not in after
    assert [path for path in after if path.startswith(layout.QUARANTINE)]
    assert affected_repositories(report) == {"missing", "truncated", "unnamed"}

    # The next push restores the lost content.
    served = launcher.start(OURS, bucket)
    assert served.remote.blob("truncated", layers["truncated"]).status == 404
    for name in ("missing", "truncated", "unnamed"):
        served.remote.push(name, images[name], "v1")
    for name, each in images.items():
        served.remote.assert_holds(name, each, "v1")
    status, report = command(tmp_path, bucket, "fsck", "--json")
    assert (status, report["tags"]) == (0, [])


def test_a_recorded_pull_counts_after_a_restart(launcher, bucket, tmp_path):
    served = launcher.start(OURS, bucket, within=RETENTION)
    for tag in ("pulled", "forgotten"):
        served.remote.push("a/b", image(tag), tag)
    served.stop()
    served.start()
    served.remote.manifest("a/b", "pulled")
    served.stop()
    served.start()
    status, report = command(
        tmp_path, bucket, "retention", "--dry-run", "--all", "--json", within=RETENTION
    )
    assert (status, report["tags"], report["failed"]) == (0, 2, 0)
    verdicts = {one["tag"]: one for one in report["verdicts"]}
    assert verdicts["pulled"]["reason"].startswith("pulled ")
    assert verdicts["pulled"]["pulled"] >= verdicts["pulled"]["pushed"]
    assert verdicts["forgotten"]["pulled"] is None
    assert verdicts["forgotten"]["reason"].startswith("pulls recorded for ")
