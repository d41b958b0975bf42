"""The format of the store is that of Distribution 2.8.3: each registry serves the other's store."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.integration.images import image, index, referrer
from tests.integration.servers import DISTRIBUTION, OURS, Bucket
from tests.support.processes import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.remote import Remote
    from twisted_registry.testing.images import AnyImage

pytestmark = pytest.mark.integration

#: Folders that may differ: uploads, and folders that Distribution does not use.
DIFFERING_FOLDERS = {"_uploads", "_referrers", "twisted-registry"}


@pytest.fixture(params=["files", "ceph", pytest.param("swift", marks=pytest.mark.nightly)])
def root(request, tmp_path):
    """The store: a folder, or a part of a bucket."""
    if request.param == "files":
        return tmp_path / "root"
    store = request.getfixturevalue("object_stores").get(request.param)
    return Bucket(store, f"dropin-{uuid4().hex}")


def fill(remote: Remote) -> dict[tuple[str, str], AnyImage]:
    """Push images of all kinds under names that sort differently in a tree and as text."""
    made = {
        ("library/plain", "1"): image("plain"),
        ("library/plain", "docker"): image("plain", docker=True),
        ("library/plain", "latest"): image("newer"),
        ("library/multi", "oci"): index("multi"),
        ("library/multi", "docker"): index("multi", ("amd64", "arm64", "s390x"), docker=True),
        ("a", "1"): image("a"),
        ("a-b", "1"): image("a"),
        ("a/b", "1"): image("a"),
        ("a.b/c_d/e--f", "v1.0-rc_1"): image("deep"),
    }
    remote.push("library/plain", image("overwritten"), "latest")
    for (name, tag), each in made.items():
        remote.push(name, each, tag)
    return made


def assert_filled(remote: Remote, made: dict[tuple[str, str], AnyImage]) -> None:
    """Check that exactly the images in ``made`` are served."""
    for (name, tag), each in made.items():
        remote.assert_holds(name, each, tag)
    for name in {name for name, _ in made}:
        tags = [tag for tag in remote.tags(name) if not tag.startswith("sha256-")]
        assert sorted(tags) == sorted(tag for each, tag in made if each == name)
    assert set(remote.catalog()) == {name for name, _ in made}


def tree(root: Path) -> dict[str, bytes]:
    """Return the files of a store with their bytes, without those that may differ."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not DIFFERING_FOLDERS.intersection(path.relative_to(root).parts)
    }


def findings(root: Path, folder: Path) -> list[object]:
    """Return the findings of fsck without repair."""
    made = folder / "fsck.yml"
    made.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\n")
    status, out, err = run(
        sys.executable, "-m", "twisted_registry", "fsck", "--json", made, cwd=folder
    )
    found = json.loads(out)
    assert (status, err, found["tags"]) == (0, [], [])
    assert found["repositories"] == 6
    assert found["files"] > 20
    return found["findings"]


def test_the_stored_tree_equals_that_of_distribution(launcher, tmp_path):
    trees = {}
    for kind in (DISTRIBUTION, OURS):
        served = launcher.start(kind, tmp_path / kind)
        made = fill(served.remote)
        assert findings(tmp_path / kind, tmp_path) == []
        gone = made["library/plain", "1"]
        deleted = [f"manifests/{gone.digest}", f"blobs/{gone.layers[0].digest}"]
        for path in deleted:
            response = served.remote.request("DELETE", f"/v2/library/plain/{path}")
            assert response.status == 202, response
        served.stop()
        trees[kind] = tree(tmp_path / kind)
        assert {path.name for path in (tmp_path / kind).iterdir()} <= {
            "docker",
            "twisted-registry",
        }
    assert trees[OURS].keys() == trees[DISTRIBUTION].keys()
    assert trees[OURS] == trees[DISTRIBUTION]


def test_we_serve_what_distribution_wrote(launcher, root, sandbox):
    theirs = launcher.start(DISTRIBUTION, root)
    made = fill(theirs.remote)
    subject = made["library/multi", "oci"]
    for note in ("sbom", "scan"):
        (sandbox.home / note).write_text(note)
        sandbox.run(
            "oras", "attach", "--plain-http", f"--artifact-type=application/x-{note}",
            theirs.image("library/multi", "oci"), f"{note}:text/plain",
        )  # fmt: skip
    fallback = subject.digest.replace(":", "-")
    attached = [
        entry["digest"]
        for entry in theirs.remote.manifest("library/multi", fallback).json()["manifests"]
    ]
    assert len(attached) == 2
    gone = image("gone")
    theirs.remote.push("a/b", gone, "gone")
    theirs.remote.request("DELETE", f"/v2/a/b/manifests/{gone.digest}")
    theirs.remote.start_upload("a/b")
    theirs.stop()

    ours = launcher.start(OURS, root)
    assert_filled(ours.remote, made)
    assert ours.remote.catalog() == sorted({name for name, _ in made})
    assert sorted(ours.remote.referrers("library/multi", subject.digest)) == sorted(attached)
    for digest in attached:
        ours.remote.assert_complete("library/multi", digest)
    for reference in ("gone", gone.digest):
        assert ours.remote.manifest("a/b", reference).status == 404

    found = sandbox.run(
        "oras", "discover", "--plain-http", "--format=json",
        "--distribution-spec=v1.1-referrers-api", ours.image("library/multi", "oci"),
    )  # fmt: skip
    assert {entry["artifactType"] for entry in json.loads(found)["manifests"]} == {
        "application/x-sbom",
        "application/x-scan",
    }


def test_distribution_serves_our_store_and_we_serve_it_again(launcher, root):
    ours = launcher.start(OURS, root)
    made = fill(ours.remote)
    subject = made["library/multi", "oci"]
    kept, withdrawn, late = (referrer(subject, text) for text in ("kept", "withdrawn", "late"))
    for each in (kept, withdrawn):
        ours.remote.push("library/multi", each)
    assert set(ours.remote.referrers("library/multi", subject.digest)) == {
        kept.digest,
        withdrawn.digest,
    }
    ours.stop()

    theirs = launcher.start(DISTRIBUTION, root)
    assert_filled(theirs.remote, made)
    theirs.remote.assert_holds("library/multi", kept)
    for (name, tag), each in {
        ("pushed/there", "1"): index("there"),
        ("library/plain", "latest"): image("moved there"),
    }.items():
        theirs.remote.push(name, each, tag)
        made[name, tag] = each
    theirs.remote.push("library/multi", late)
    deleted = made.pop(("a-b", "1"))
    removals = (("a-b", deleted), ("library/multi", withdrawn))
    for name, each in removals:
        response = theirs.remote.request("DELETE", f"/v2/{name}/manifests/{each.digest}")
        assert response.status == 202, response
    catalog = theirs.remote.catalog()
    theirs.stop()

    ours = launcher.start(OURS, root)
    assert sorted(ours.remote.catalog()) == sorted(catalog)
    for (name, tag), each in made.items():
        ours.remote.assert_holds(name, each, tag)
    for name, each in removals:
        assert ours.remote.manifest(name, each.digest).status == 404
    assert set(ours.remote.referrers("library/multi", subject.digest)) == {
        kept.digest,
        late.digest,
    }
    ours.remote.push("a-b", deleted, "1")
    ours.remote.assert_holds("a-b", deleted, "1")
