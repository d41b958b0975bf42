"""Each kind of damage is found, repaired as far as possible, and nothing else is touched."""

from __future__ import annotations

import pytest
from attrs import frozen
from domain import DiskWorld, World, descriptor, done, image, index
from kept import DAY, Store, attending, drive

from twisted_registry.digest import Digest
from twisted_registry.maintenance.fsck import Fsck, Watcher
from twisted_registry.maintenance.pace import Pace
from twisted_registry.maintenance.repair import Repair
from twisted_registry.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout
from twisted_registry.repository.checking.blobs import StoredBlobs
from twisted_registry.repository.checking.damage import Kind
from twisted_registry.repository.checking.links import Links
from twisted_registry.repository.checking.parts import Parts
from twisted_registry.repository.checking.remains import Remains
from twisted_registry.repository.checking.repositories import Repositories
from twisted_registry.repository.checking.shelf import Shelf
from twisted_registry.repository.checking.sizes import Sizes
from twisted_registry.repository.condemned import Condemned, Phase
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.policy import Policy
from twisted_registry.repository.removal import Removal
from twisted_registry.storage.interfaces import StorageError

NAME = "a/b"
PLAIN = image(annotations={"is": "plain"})
CHILD = image(layers=[descriptor(b"child layer")])
INDEX = index(descriptor(CHILD, OCI_IMAGE), descriptor(PLAIN, OCI_IMAGE))
REFERRER = image(subject=descriptor(PLAIN, OCI_IMAGE), artifactType="a/b")
OTHER = f"sha256:{'1' * 64}"
UPLOAD = "12345678-1234-1234-1234-123456789abc"


def path_of(content):
    return layout.blob(Digest.of(content))


LAYER = path_of(b"layer")
LAYER_LINK = layout.layer_link(NAME, Digest.of(b"layer"))
REVISION = layout.revision_link(NAME, Digest.of(PLAIN))
TAG = layout.tag_current(NAME, "plain")
TAG_INDEX = layout.tag_index(NAME, "plain", Digest.of(PLAIN))
OLD_INDEX = layout.tag_index(NAME, "plain", Digest("sha256", "1" * 64))
REFERRER_LINK = layout.referrer_link(NAME, Digest.of(PLAIN), Digest.of(REFERRER))
GONE = "0" * 64


class Heard(Watcher):
    counts = True

    def __init__(self):
        self.findings = []
        self.progress = []

    def found(self, finding):
        self.findings.append(finding)

    def read(self, done, total):
        self.progress.append((done, total))


class Checked(Store):
    """A store with an image, an index, and a referrer of the image; all of them old."""

    def __init__(self, world):
        super().__init__(world)
        for content in (b"{}", b"layer", b"child layer"):
            world.blob(content)
        world.put(PLAIN, OCI_IMAGE, "plain")
        world.put(CHILD, OCI_IMAGE)
        world.put(INDEX, OCI_INDEX, "multi")
        world.put(REFERRER, OCI_IMAGE)
        world.image("v1", "other")
        self.age(2 * DAY)
        self.world.restart()

    def check(self, *, repair=False, policy=None):
        driver, clock = self.world.driver, self.world.clock
        shelf, heard, corrupt = Shelf(driver, clock), Heard(), set()
        links = Links(driver, shelf)
        parts = Parts(links, Sizes(driver), policy or Policy(), corrupt)
        blobs = StoredBlobs(driver, shelf, Pace(clock, 0).pay)
        fsck = Fsck(blobs, corrupt, Repair(Removal(driver), clock, repair), heard)
        repositories = Repositories(
            links, parts, Inventory(driver), fsck.entering, fsck.tags.append
        )
        remains = Remains(driver, clock.seconds() - DAY)
        fsck.others += [repositories.findings, remains.findings]
        return drive(self.world, fsck.run()), heard

    def tree(self):
        return {path: self.world.read(path) for path in self.world.paths()}


@pytest.fixture(params=[World, DiskWorld])
def store(request):
    return Checked(request.param())


@frozen
class Plant:
    """Some damage.

    :ivar changes: paths and what is to lie there; None removes.
    :ivar found: kind and end of the path of each finding.
    :ivar tags: that are affected.
    :ivar repaired: whether all of it can be.
    :ivar adds: paths that the repair makes.
    :ivar also: kinds that follow from it, until it is repaired.
    :ivar left: tags that are affected after the repair, if they are others.
    """

    changes: dict[str, bytes | None]
    found: list[tuple[Kind, str]]
    tags: tuple[str, ...] = ()
    repaired: bool = True
    adds: tuple[str, ...] = ()
    also: tuple[Kind, ...] = ()
    left: tuple[str, ...] | None = None


BOTH = ("multi", "plain", "v1")
PLANTS = {
    "missing blob": Plant(
        {LAYER: None},
        # The links of both repositories lead nowhere; four manifests need it.
        [(Kind.LINK_DANGLING, LAYER_LINK), (Kind.PART_MISSING, REVISION)],
        BOTH, repaired=False,
    ),
    "empty blob": Plant({LAYER: b""}, [(Kind.BLOB_EMPTY, LAYER)], BOTH, repaired=False),
    "truncated blob": Plant({LAYER: b"lay"}, [(Kind.BLOB_CORRUPT, LAYER)], BOTH, repaired=False),
    "grown blob": Plant({LAYER: b"layers"}, [(Kind.BLOB_CORRUPT, LAYER)], BOTH, repaired=False),
    "flipped blob": Plant({LAYER: b"Layer"}, [(Kind.BLOB_CORRUPT, LAYER)], BOTH, repaired=False),
    "flipped manifest": Plant(
        {path_of(PLAIN): PLAIN[:-1] + b" "}, [(Kind.BLOB_CORRUPT, path_of(PLAIN))],
        ("multi", "plain"), repaired=False,
    ),
    "missing manifest": Plant(
        {path_of(CHILD): None},
        # No tag names it, so its link goes; the index goes on missing it.
        [(Kind.LINK_DANGLING, layout.revision_link(NAME, Digest.of(CHILD))),
         (Kind.PART_MISSING, layout.revision_link(NAME, Digest.of(INDEX)))],
        ("multi",), repaired=False,
    ),
    "missing manifest of a tag": Plant(
        {path_of(PLAIN): None},
        [(Kind.LINK_DANGLING, REVISION),
         (Kind.PART_MISSING, layout.revision_link(NAME, Digest.of(INDEX)))],
        ("multi", "plain"), repaired=False,
    ),
    "misplaced blob": Plant(
        {LAYER.replace(f"/{Digest.of(b'layer').hex[:2]}/", "/zz/"): b"layer"},
        [(Kind.BLOB_MISPLACED, "/zz/" + Digest.of(b"layer").hex + "/data")],
    ),
    "misplaced and missed": Plant(
        {LAYER: None, LAYER.replace(f"/{Digest.of(b'layer').hex[:2]}/", "/zz/"): b"layer"},
        [(Kind.BLOB_MISPLACED, "/zz/" + Digest.of(b"layer").hex + "/data")], adds=(LAYER,),
        also=(Kind.PART_MISSING, Kind.LINK_DANGLING),
    ),
    "empty layer link": Plant({LAYER_LINK: b""}, [(Kind.LINK_EMPTY, LAYER_LINK)],
        also=(Kind.PART_UNLINKED,),
    ),
    "malformed layer link": Plant({LAYER_LINK: b"x"}, [(Kind.LINK_MALFORMED, LAYER_LINK)],
        also=(Kind.PART_UNLINKED,),
    ),
    "layer link to another": Plant(
        {LAYER_LINK: OTHER.encode()}, [(Kind.LINK_MALFORMED, LAYER_LINK)],
        also=(Kind.PART_UNLINKED,)
    ),
    "dangling layer link": Plant(
        {layout.layer_link(NAME, Digest("sha256", GONE)): b"sha256:" + GONE.encode()},
        [(Kind.LINK_DANGLING, f"{GONE}/link")],
    ),
    "missing layer link": Plant(
        {LAYER_LINK: None}, [(Kind.PART_UNLINKED, REVISION)], ("multi", "plain"), repaired=False
    ),
    "empty revision": Plant({REVISION: b""}, [(Kind.LINK_EMPTY, REVISION)],
        also=(Kind.PART_UNLINKED, Kind.LINK_DANGLING),
    ),
    "malformed revision": Plant({REVISION: b"\xff"}, [(Kind.LINK_MALFORMED, REVISION)],
        also=(Kind.PART_UNLINKED, Kind.LINK_DANGLING),
    ),
    "dangling revision": Plant(
        {layout.revision_link(NAME, Digest("sha256", GONE)): b"sha256:" + GONE.encode()},
        [(Kind.LINK_DANGLING, f"{GONE}/link")],
    ),
    "empty tag": Plant({TAG: b""}, [(Kind.LINK_EMPTY, TAG)]),
    "malformed tag": Plant({TAG: b"latest"}, [(Kind.LINK_MALFORMED, TAG)]),
    "empty tag that named several": Plant(
        {TAG: b"", layout.tag_index(NAME, "plain", Digest.of(CHILD)):
            str(Digest.of(CHILD)).encode()},
        [(Kind.LINK_EMPTY, TAG)], ("plain",), repaired=False,
    ),
    "dangling tag": Plant(
        {TAG: OTHER.encode()}, [(Kind.LINK_DANGLING, TAG)], ("plain",), repaired=False
    ),
    "tag of a manifest that is not linked": Plant(
        {REVISION: None},
        [(Kind.LINK_DANGLING, TAG), (Kind.LINK_DANGLING, TAG_INDEX),
         (Kind.PART_UNLINKED, layout.revision_link(NAME, Digest.of(INDEX)))],
        ("multi", "plain"), repaired=False, adds=(REVISION,), left=("multi",),
    ),
    "tag without a link": Plant(
        {TAG: None}, [(Kind.TAG_UNFINISHED, layout.tag(NAME, "plain"))], repaired=False
    ),
    "empty tag index": Plant({TAG_INDEX: b""}, [(Kind.LINK_EMPTY, TAG_INDEX)]),
    "malformed tag index": Plant({TAG_INDEX: b"x"}, [(Kind.LINK_MALFORMED, TAG_INDEX)]),
    "dangling tag index": Plant(
        {OLD_INDEX: OTHER.encode()}, [(Kind.LINK_DANGLING, OLD_INDEX)]
    ),
    "empty referrer": Plant({REFERRER_LINK: b""}, [(Kind.LINK_EMPTY, REFERRER_LINK)],
        also=(Kind.REFERRER_UNLISTED,),
    ),
    "malformed referrer": Plant({REFERRER_LINK: b"x"}, [(Kind.LINK_MALFORMED, REFERRER_LINK)],
        also=(Kind.REFERRER_UNLISTED,),
    ),
    "dangling referrer": Plant(
        {layout.referrer_link(NAME, Digest.of(PLAIN), Digest.parse(OTHER)): OTHER.encode()},
        [(Kind.LINK_DANGLING, f"{'1' * 64}/link")],
    ),
    "unlisted referrer": Plant(
        {REFERRER_LINK: None}, [(Kind.REFERRER_UNLISTED, REFERRER_LINK)], adds=(REFERRER_LINK,)
    ),
    "stray blob": Plant(
        {f"{layout.BLOBS}/sha256/notes": b"?"}, [(Kind.FILE_STRAY, "notes")], repaired=False
    ),
    "stray file": Plant(
        {f"{layout.repository(NAME)}/_layers/sha256/notes": b"?"}, [(Kind.FILE_STRAY, "notes")],
        repaired=False,
    ),
    "file for a folder": Plant(
        {f"{layout.repository('third')}/_manifests": b"?"}, [(Kind.FILE_STRAY, "_manifests")],
        repaired=False,
    ),
    "repository without _layers": Plant(
        {layout.layers("other"): None}, [
            (Kind.PART_UNLINKED, ""), (Kind.REPOSITORY_UNMARKED, layout.repository("other"))
        ], ("v1",), repaired=False, adds=(layout.layers_mark("other"),),
    ),
    "malformed media type": Plant(
        {layout.revision_media_type(NAME, Digest.of(PLAIN)): b"?"},
        [(Kind.TYPE_MALFORMED, "mediatype")],
    ),
    "upload without data": Plant(
        {layout.upload_started(NAME, UPLOAD): b"2020-01-01T00:00:00Z"},
        [(Kind.UPLOAD_INCOMPLETE, UPLOAD)],
    ),
    "upload without startedat": Plant(
        {layout.upload_data(NAME, UPLOAD): b"?"}, [(Kind.UPLOAD_INCOMPLETE, UPLOAD)]
    ),
    "torn list": Plant(
        {layout.CONDEMNED: Condemned("1", Phase.PROPOSED, 60, frozenset()).to_bytes()[:-2]},
        [(Kind.RECORD_TORN, layout.CONDEMNED)],
    ),
    "torn secret": Plant(
        {layout.UPLOAD_SECRET: b"short"}, [(Kind.RECORD_TORN, layout.UPLOAD_SECRET)],
        repaired=False,
    ),
    "old leases": Plant(
        {layout.lease("1", Digest.of(b"layer")): b""}, [(Kind.LEFTOVERS, layout.leases("1"))]
    ),
}  # fmt: skip
#: Manifests that are whole, and no good: with the kind and a part of what is said of each.
MANIFESTS = {
    "no JSON": (b"{", Kind.MANIFEST_INVALID, "no JSON object"),
    "another shape": (
        image(layers="none"), Kind.MANIFEST_INVALID, "layers: a list is expected",
    ),
    "no config": (
        image(config=descriptor(b"nothing")), Kind.PART_MISSING, f"config {Digest.of(b'nothing')}"
    ),
    "no layer": (
        image(layers=[descriptor(b"none")]), Kind.PART_MISSING, f"layer {Digest.of(b'none')}"
    ),
    "no child": (
        index(descriptor(b"child", OCI_IMAGE)), Kind.PART_MISSING, "is not in the store"
    ),
    "another size": (
        image(layers=[{**descriptor(b"layer"), "size": 4}]), Kind.SIZE_WRONG,
        "has 5 bytes, not 4",
    ),
}  # fmt: skip


def plant(world, changes):
    for path, content in changes.items():
        if content is None:
            world.remove(path)
        else:
            world.write(path, content)
    world.clock.advance(2 * DAY)


def told(found, heard):
    """What a run told, beside what each manifest of the same kind repeats."""
    return {(finding.kind, finding.path) for finding in heard.findings}, sorted(
        {tag.tag for tag in found.tags}
    )


def test_a_store_without_damage(store):
    before = store.tree()
    found, heard = store.check(repair=True)
    assert heard.findings == []
    assert (found.files, found.repositories, found.tags) == (8, 2, ())
    assert heard.progress[-1] == (found.size, found.size)
    assert store.tree() == before


@pytest.mark.parametrize("planted", PLANTS.values(), ids=PLANTS)
def test_damage_is_found_and_repaired(store, planted):
    plant(store.world, planted.changes)
    before = store.tree()
    found, heard = store.check()
    kinds, tags = told(found, heard)
    for kind, ending in planted.found:
        assert [path for one, path in kinds if one is kind and path.endswith(ending)], kinds
    assert {kind for kind, _ in kinds} == {*(kind for kind, _ in planted.found), *planted.also}
    if planted.tags:
        assert tags == sorted(planted.tags)
    assert found.repaired == 0
    assert store.tree() == before
    assert all(str(finding).startswith(finding.kind.value) for finding in heard.findings)

    repaired, _ = store.check(repair=True)
    after = store.tree()
    touched = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    touched = {path for path in touched if not path.startswith(layout.QUARANTINE)}
    allowed = {*planted.changes, *planted.adds, layout.CLOCK}
    if planted.repaired:
        assert touched <= allowed
        assert (repaired.damaged, repaired.tags) == (0, ())
        _, heard = store.check(repair=True)
        assert heard.findings == []
    else:
        damaged = {finding.path for finding in heard.findings}
        assert {path for path in touched if path not in damaged} <= allowed
        left = planted.tags if planted.left is None else planted.left
        assert sorted({tag.tag for tag in repaired.tags}) == sorted(left)
        store.check(repair=True)
        settled = store.tree()
        store.check(repair=True)
        assert store.tree() == settled


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_no_good(store, content):
    content, kind, text = content
    digest = Digest.of(content)
    path = layout.revision_link(NAME, digest)
    plant(
        store.world,
        {
            layout.blob(digest): content,
            path: str(digest).encode(),
            layout.tag_current(NAME, "bad"): str(digest).encode(),
        },
    )
    before = store.tree()
    found, heard = store.check(repair=True)
    assert [(finding.kind, finding.path) for finding in heard.findings] == [(kind, path)]
    assert text in heard.findings[0].detail
    assert [(tag.repository, tag.tag) for tag in found.tags] == [(NAME, "bad")]
    assert found.damaged == 1
    assert store.tree() == before


def test_manifests_of_other_types_need_nothing(store):
    old = b'{"schemaVersion": 1, "name": "a/b", "fsLayers": []}'
    store.world.put(b"\xff", "application/x-bytes", "bytes")
    digest = Digest.of(old)
    plant(
        store.world,
        {layout.blob(digest): old, layout.revision_link(NAME, digest): str(digest).encode()},
    )
    assert store.check()[1].findings == []


def test_an_index_whose_children_need_not_be_there_is_called_sparse(store):
    content = index(descriptor(b"child", OCI_IMAGE))
    digest = Digest.of(content)
    plant(
        store.world,
        {layout.blob(digest): content, layout.revision_link(NAME, digest): str(digest).encode()},
    )
    found, heard = store.check(policy=Policy(platforms="none"))
    assert [finding.kind for finding in heard.findings] == [Kind.INDEX_SPARSE]
    assert (found.damaged, found.harmless) == (0, 1)


def test_a_folder_that_can_not_be_read_hides_nothing_else(store):
    store.world.write(LAYER_LINK, b"")
    broken = layout.manifests(NAME)

    def before(_number, action, path):
        if str(path).startswith(broken) or (action == "walk" and broken.startswith(path)):
            raise StorageError(path, "the disk is broken")

    store.world.driver.before = before
    found, heard = store.check()
    assert {(finding.kind, finding.path) for finding in heard.findings} == {
        (Kind.FOLDER_UNREADABLE, broken),
        (Kind.LINK_EMPTY, LAYER_LINK),
    }
    assert found.repositories == 2


def test_what_heals_between_a_look_and_its_repair_stays(store):
    """A push beside it stores what was missing."""
    gone = b"gone for a while"
    link = layout.layer_link(NAME, Digest.of(gone))
    store.world.write(link, str(Digest.of(gone)).encode())

    def pushed(_number, action, path):
        if action == "put" and path == layout.CONDEMNED:
            store.world.write(layout.blob(Digest.of(gone)), gone)

    store.world.driver.after = pushed
    found, heard = store.check(repair=True)
    assert [finding.kind for finding in heard.findings] == [Kind.LINK_DANGLING]
    assert link in store.world.paths()
    assert found.repaired == 0


def test_what_is_deleted_while_it_is_looked_at_is_no_damage(store):
    deleted = []

    def delete(_number, action, path):
        if action == "stat" and path == LAYER and not deleted:
            # As the collector does, when nothing refers to it any more.
            deleted.append(True)
            for digest in (PLAIN, CHILD, INDEX, REFERRER):
                store.world.remove(layout.revision(NAME, Digest.of(digest)))
            store.world.remove(layout.layer_link(NAME, Digest.of(b"layer")))
            for tag in ("plain", "multi"):
                store.world.remove(layout.tag(NAME, tag))
            store.world.remove(f"{layout.repository(NAME)}/_referrers")

    store.world.driver.before = delete
    assert store.check()[1].findings == []
    assert deleted


def test_beside_processes_that_serve_the_next_push_heals(store):
    gate = store.serve()
    attending(store, gate)
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
