"""What a check makes of a store that is in use, or that can not be read."""

from __future__ import annotations

import os

import pytest
from twisted.internet.task import Clock

from tests.gc.collected_store import DAY, heartbeats_running
from tests.integrity.checked_store import (
    CHILD,
    INDEX,
    NAME,
    PLAIN,
    REFERRER,
    CheckedStore,
    path_of,
    revision_of,
)
from tests.integrity.damage_cases import LAYER, LAYER_LINK
from tests.repository.trash_kit import WORLDS
from tests.repository.worlds import descriptor, done, image, index, result_of
from tests.storage.filesystem.power_loss import ROOT
from twisted_registry.commands.fsck import document, exit_status
from twisted_registry.integrity.findings import FindingKind, Severity
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import layout
from twisted_registry.repository.policy import Policy
from twisted_registry.storage.filesystem.tree import temporary_name
from twisted_registry.storage.interfaces import StorageError


@pytest.fixture(params=WORLDS.values(), ids=WORLDS)
def store(request):
    return CheckedStore(request.param())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "not a JSON object"),
        (image(layers="none"), "layers: a list is expected"),
        (image(config=descriptor(b"none")), f"config {Digest.of(b'none')} is not in the store"),
        (image(layers=[descriptor(b"none")]), f"layer {Digest.of(b'none')} is not in the store"),
        (index(descriptor(b"none", OCI_IMAGE)), f"child {Digest.of(b'none')} is not in the store"),
        (image(layers=[{**descriptor(b"layer"), "size": 4}]), "has 5 bytes, not 4"),
    ],
)
def test_an_invalid_manifest_is_reported_with_the_reason(store, content, text):
    store.plant({path_of(content): content, revision_of(content): str(Digest.of(content)).encode()})
    _, observer = store.check()
    (finding,) = observer.findings
    assert text in finding.detail
    assert str(finding).startswith(f"{finding.kind.value}: {finding.path}")
    assert (finding.repository, finding.digest) == (NAME, Digest.of(content))


def test_manifests_of_unknown_types_are_not_reported(store):
    old = b'{"schemaVersion": 1, "name": "a/b", "fsLayers": []}'
    store.world.put(b"\xff", "application/x-bytes", "bytes")
    digest = Digest.of(old)
    store.plant(
        {layout.blob_data(digest): old, layout.revision_link(NAME, digest): str(digest).encode()},
    )
    assert store.check()[1].findings == []


def test_an_index_with_optional_children_missing_is_sparse(store):
    content = index(descriptor(b"child", OCI_IMAGE))
    digest = Digest.of(content)
    store.plant(
        {
            layout.blob_data(digest): content,
            layout.revision_link(NAME, digest): str(digest).encode(),
            layout.tag_current_link(NAME, "sparse"): str(digest).encode(),
        }
    )
    before = store.tree()
    for repair in (False, True):
        found, observer = store.check(policy=Policy(platforms="none"), repair=repair)
        (finding,) = observer.findings
        assert (finding.kind, finding.severity) == (FindingKind.INDEX_SPARSE, Severity.SPARSE)
        assert (found.damaged, found.sparse, found.harmless, found.tags) == (0, 1, 0, ())
        assert exit_status(found) == 0
        assert document(found, observer.findings)["sparse"] == 1
    assert store.tree() == before
    found, observer = store.check()
    assert [finding.kind for finding in observer.findings] == [FindingKind.PART_MISSING]
    assert [tag.tag for tag in found.tags] == ["sparse"]


def test_an_unreadable_folder_does_not_hide_other_findings(store):
    store.plant({LAYER_LINK: b""})
    before_it = store.tree()
    broken = layout.manifests_folder(NAME)

    def before(_number, action, path):
        if str(path).startswith(broken) or (action == "walk" and broken.startswith(path)):
            raise StorageError(path, "the disk is broken")

    store.world.driver.before = before
    found, observer = store.check(repair=True)
    assert {(finding.kind, finding.path) for finding in observer.findings} == {
        (FindingKind.FOLDER_UNREADABLE, broken),
        (FindingKind.LINK_EMPTY, LAYER_LINK),
    }
    assert (found.repositories, found.damaged, found.repaired) == (2, 1, 1)
    assert exit_status(found) == 3
    store.world.driver.before = lambda number, action, path: None
    assert store.tree() == {**before_it, LAYER_LINK: str(Digest.of(b"layer")).encode()}


def test_content_that_is_intact_again_before_its_repair_stays(store):
    """A push beside it stores what was missing."""
    gone = b"gone for a while"
    link = layout.layer_link(NAME, Digest.of(gone))
    store.world.write(link, str(Digest.of(gone)).encode())

    def pushed(_number, action, path):
        if action == "put" and path == layout.DELETE_LIST:
            store.world.write(layout.blob_data(Digest.of(gone)), gone)

    store.world.driver.after = pushed
    found, observer = store.check(repair=True)
    assert [finding.kind for finding in observer.findings] == [FindingKind.LINK_DANGLING]
    assert link in store.world.paths()
    assert found.repaired == 0


def test_content_that_is_deleted_during_the_check_is_not_reported(store):
    deleted = []

    def delete(_number, action, path):
        if action == "stat" and path == LAYER and not deleted:
            # As the collector does, when nothing refers to it any more.
            deleted.append(True)
            for digest in (PLAIN, CHILD, INDEX, REFERRER):
                store.world.remove(layout.revision_folder(NAME, Digest.of(digest)))
            store.world.remove(layout.layer_link(NAME, Digest.of(b"layer")))
            for tag in ("plain", "multi"):
                store.world.remove(layout.tag_folder(NAME, tag))
            store.world.remove(f"{layout.repository_folder(NAME)}/_referrers")

    store.world.driver.before = delete
    assert store.check()[1].findings == []
    assert deleted


def test_a_push_to_a_serving_process_repairs_damage(store):
    gate = store.serve()
    heartbeats_running(store, gate)
    store.age(60)
    store.world.write(LAYER, b"wrong")
    assert store.check(repair=True)[0].repaired == 1
    store.world.clock.advance(5)
    assert not store.is_whole(Digest.of(PLAIN))
    for name in (NAME, "other"):
        store.world.blob(b"layer", name)
    assert store.is_whole(Digest.of(INDEX))
    assert done(store.world.repo().tags.resolve("plain"))
    assert store.check()[1].findings == []


def test_a_repair_on_a_machine_with_a_fast_clock_keeps_what_is_new(store):
    upload = f"{layout.uploads_folder(NAME)}/12345678-1234-1234-1234-123456789abc/data"
    store.world.write(upload, b"begun")
    fast = Clock()
    fast.advance(store.world.clock.seconds() + 10 * DAY)
    assert store.check(repair=True, clock=fast)[1].findings == []
    store.age()
    assert [found.kind for found in store.check(repair=True)[1].findings] == [
        FindingKind.UPLOAD_INCOMPLETE
    ]


@pytest.mark.parametrize("folder", [layout.BLOBS, layout.TRASH, layout.uploads_folder(NAME)])
def test_each_unreadable_folder_is_reported(store, folder):
    upload = f"{layout.uploads_folder(NAME)}/12345678-1234-1234-1234-123456789abc/startedat"
    store.plant({upload: b"2020-01-01T00:00:00Z", upload.replace("startedat", "data"): b""})
    before_it = store.tree()

    def before(_number, action, path):
        if str(path).startswith(folder) or (action == "walk" and folder.startswith(path)):
            raise StorageError(path, "the disk is broken")

    store.world.driver.before = before
    found, observer = store.check(repair=True)
    unreadable = {f.path for f in observer.findings if f.kind is FindingKind.FOLDER_UNREADABLE}
    assert folder in unreadable
    assert exit_status(found) == 3
    # What lies in it can not be pulled.
    assert len(found.tags) == (3 if folder == layout.BLOBS else 0)
    store.world.driver.before = lambda number, action, path: None
    assert store.tree() == before_it


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (layout.DELETE_LIST, FindingKind.FILE_UNREADABLE),
        (layout.UPLOAD_SECRET, FindingKind.FILE_UNREADABLE),
        (layout.LEASES, FindingKind.FOLDER_UNREADABLE),
    ],
)
def test_unreadable_records_do_not_hide_other_findings(store, path, kind):
    store.plant({"docker/registry/v2/notes": b"?"})
    broken = path

    def before(_number, action, path):
        if path == broken and action in {"get", "list"}:
            raise StorageError(path, "the disk is broken")

    store.world.driver.before = before
    _, observer = store.check()
    found = {(finding.kind, finding.path) for finding in observer.findings}
    assert found == {(kind, broken), (FindingKind.FILE_STRAY, "docker/registry/v2/notes")}


def test_young_uploads_and_leases_are_not_reported(store):
    """Younger than the grace period, it is not even told."""
    upload = done(store.world.repo().uploads.start())
    other = layout.upload_started(NAME, "12345678-1234-1234-1234-123456789abc")
    store.world.write(other, b"2020-01-01T00:00:00Z")
    lease = layout.lease_file("1", Digest.of(b"layer"))
    store.world.write(lease, b"")
    before = store.tree()
    assert store.check(repair=True)[1].findings == []
    assert store.tree() == before
    assert done(store.world.repo().uploads.find(upload.id)).size == 0
    store.age()
    # One that only waits for its client is for the purge.
    found = {finding.path for finding in store.check(repair=True)[1].findings}
    assert layout.upload_folder(NAME, "12345678-1234-1234-1234-123456789abc") in found
    assert not {other, lease} & set(store.world.paths())


def test_temporary_files_of_crashes_are_reported_on_a_disk():
    store = CheckedStore(WORLDS["disk"]())
    before = store.tree()
    paths = [
        f"{ROOT}/{temporary_name()}",
        f"{ROOT}/{layout.repository_folder(NAME)}/{temporary_name()}",
    ]
    for path in paths:
        store.world.disk.close(store.world.disk.open(path, os.O_RDWR | os.O_CREAT))
    assert store.check()[1].findings == []
    store.age()
    found, observer = store.check()
    (finding,) = observer.findings
    assert (finding.kind, finding.detail) == (
        FindingKind.LEFTOVERS,
        "2 temporary files that a crash left",
    )
    assert exit_status(found) == 0
    for path in paths:
        assert store.world.disk.stat(path)
    assert store.check(repair=True)[0].repaired == 1
    for path in paths:
        with pytest.raises(FileNotFoundError):
            store.world.disk.stat(path)
    assert store.check()[1].findings == []
    assert store.tree() == before


def test_multipart_uploads_of_crashes_are_reported_in_a_bucket():
    store = CheckedStore(WORLDS["bucket"]())
    before = store.tree()
    bucket = store.world.bucket
    result_of(bucket.create_multipart_upload(layout.upload_data(NAME, "abandoned")))
    store.age()
    assert [f.kind for f in store.check()[1].findings] == [FindingKind.LEFTOVERS]
    assert len(bucket.uploads) == 1
    assert store.check(repair=True)[0].repaired == 1
    assert bucket.uploads == {}
    assert store.check()[1].findings == []
    assert store.tree() == before
