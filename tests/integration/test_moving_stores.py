"""A registry moved from a disk into a bucket and back, with one copy that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.integration.images import image, index
from tests.integration.servers import OURS, Bucket, peak_memory, written
from tests.support.processes import free_port
from tests.support.s3_servers import BUCKET, client

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
#: Upper limit for the peak memory of the command in bytes.
CEILING = 150 * MIB


def start(work, source, target):
    """Start the command that copies."""
    files = [written(work, OURS, root, free_port()) for root in (source, target)]
    command = [sys.executable, "-m", "twisted_registry", "copy-store", "--json", *map(str, files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=work)


def copy_store(work, source, target):
    """Copy; return the report of the command and its peak memory in bytes."""
    peak = 0
    with start(work, source, target) as copying:
        while copying.poll() is None:
            peak = max(peak, peak_memory(copying.pid))
            time.sleep(0.02)
        output = copying.stdout.read()
    assert copying.returncode == 0
    return json.loads(output), peak


def tree(root: Path):
    """Return the files below ``docker``, without uploads and indexes that are rebuilt."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in (root / "docker").rglob("*")
        if path.is_file() and not {"_uploads", "_referrers"} & set(path.parts)
    }


@pytest.mark.parametrize("kind", ["ceph", pytest.param("swift", marks=pytest.mark.nightly)])
def test_copy_store_moves_a_registry_into_a_bucket_and_back(
    launcher, object_stores, tmp_path, kind, record_property
):
    store = object_stores.get(kind)
    disk, back = tmp_path / "disk", tmp_path / "back"
    bucket = Bucket(store, f"copy-{uuid4().hex}")
    images = {(f"a/{number % 3}", f"t{number}"): image(number) for number in range(6)}
    images["large", "1"] = image("large", layers=4, size=12 * MIB)
    images["many", "1"] = index("copied")
    old = launcher.start(OURS, disk)
    for (name, tag), each in images.items():
        old.remote.push(name, each, tag)
    # The first copy is killed as soon as it has stored something.
    with start(tmp_path, disk, bucket) as copying:
        while copying.poll() is None and not is_there(store, bucket.prefix):
            time.sleep(0.01)
        copying.kill()
    late = image("late")
    old.remote.push("late", late, "1")
    images["late", "1"] = late
    report, peak = copy_store(tmp_path, disk, bucket)
    assert report["damaged"] == []
    assert report["tags"] <= len(images)
    new = launcher.start(OURS, bucket)
    for (name, tag), each in images.items():
        new.remote.assert_holds(name, each, tag)
    assert new.remote.catalog() == old.remote.catalog()
    again, _ = copy_store(tmp_path, disk, bucket)
    assert (again["blobs"], again["manifests"], again["tags"]) == (0, 0, 0)
    _, peak_back = copy_store(tmp_path, bucket, back)
    assert tree(back) == tree(disk)
    peaks = {"there": peak // MIB, "back": peak_back // MIB}
    record_property("peak_mebibytes", peaks)
    print(f"peak of copy-store in MiB: {peaks}")
    assert max(peak, peak_back) < CEILING, peaks


def is_there(store, prefix):
    """Return whether any key has this prefix."""
    response = client(store).list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/", MaxKeys=1)
    return response["KeyCount"] > 0
