"""``garbage-collect`` over images for several platforms: Distribution's own loses them."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.integration.images import blobs_of, image, index, referrer
from tests.integration.servers import DISTRIBUTION, OURS, program, written
from twisted_registry.testing.images import all_images

pytestmark = pytest.mark.integration

COLLECT = ("garbage-collect", "--delete-untagged")


def with_grace(seconds):
    """Return lines for the section ``storage``."""
    return f"  maintenance: {{gc: {{grace: {seconds}s}}}}\n"


def collect(command, work, root, grace=0):
    """Run a collection; return its output."""
    path = written(work, "collect", root, 1, within=with_grace(grace))
    done = subprocess.run(
        [*command, *COLLECT, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def ours(*arguments, **settings):
    return collect([sys.executable, "-m", "twisted_registry"], *arguments, **settings)


def blobs(root):
    """Return the digests of the blobs on the disk."""
    return {f"sha256:{path.parent.name}" for path in root.rglob("blobs/**/data")}


def digests_of(*images):
    """Return the digests of all manifests and blobs of images."""
    return {each.digest for top in images for each in (*all_images(top), *blobs_of(top))}


def test_images_that_distribution_destroys_are_kept(launcher, tmp_path):
    root, copy = tmp_path / "root", tmp_path / "copy"
    served = launcher.start(DISTRIBUTION, root)
    images = {
        "plain": image("plain"),
        "oci": index("oci"),
        "docker": index("docker", ("amd64", "arm64", "s390x"), docker=True),
    }
    signature = referrer(images["oci"], "signed")
    loose = image("nobody's")
    for tag, each in images.items():
        served.remote.push("multi", each, tag)
    for each in (signature, loose):
        served.remote.push("multi", each)
    served.stop()
    shutil.copytree(root, copy)

    collect([program("docker-registry")], tmp_path, copy)
    theirs = launcher.start(DISTRIBUTION, copy)
    theirs.remote.assert_holds("multi", images["plain"], "plain")
    for tag in ("oci", "docker"):
        # The index still exists, but none of its images.
        assert theirs.remote.manifest("multi", tag).status == 200
        for child in images[tag].images:
            assert theirs.remote.manifest("multi", child.digest).status == 404
            assert not blobs(copy) & {blob.digest for blob in child.blobs}

    ours(tmp_path, root)
    assert blobs(root) == digests_of(*images.values(), signature)
    for kind in (OURS, DISTRIBUTION):
        served = launcher.start(kind, root)
        for tag, each in images.items():
            served.remote.assert_holds("multi", each, tag)
        served.remote.assert_holds("multi", signature)
        served.stop()


def test_collecting_beside_a_server_deletes_after_the_grace(launcher, tmp_path):
    root = tmp_path / "root"
    served = launcher.start(OURS, root, 2, within=with_grace(1))
    multi, doomed = index("multi"), image("doomed")
    served.remote.push("a", multi, "multi")
    served.remote.push("a", doomed, "doomed")
    assert served.remote.request("DELETE", f"/v2/a/manifests/{doomed.digest}").status == 202
    assert digests_of(doomed) <= blobs(root)
    # At first it may be too young, or a worker reported it as present within two seconds.
    outputs = [ours(tmp_path, root, grace=1)]
    while digests_of(doomed) & blobs(root):
        assert len(outputs) < 60, outputs
        outputs.append(ours(tmp_path, root, grace=1))
    assert blobs(root) == digests_of(multi)
    assert "blobs and 0 manifests deleted" in outputs[-1]
    assert not (root / "twisted-registry/collector/list").exists()
    served.remote.assert_holds("a", multi, "multi")
    for blob in doomed.blobs:
        assert served.remote.request("HEAD", f"/v2/a/blobs/{blob.digest}").status == 404
    # Deleted content can be pushed again at once.
    served.remote.push("a", doomed, "doomed")
    served.remote.assert_holds("a", doomed, "doomed")
