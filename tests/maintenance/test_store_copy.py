"""Copies of a store: completeness, verification, repetition, interruption, concurrent pushes."""

from __future__ import annotations

import pytest

from tests.repository.watched_driver import dies_at, fails_at
from tests.repository.worlds import DiskWorld, World, descriptor, done, image, index
from twisted_registry.maintenance.store_copy import StoreCopy
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout

BLOBS = "docker/registry/v2/blobs"


def filled(world):
    """Fill repositories with tags, an index, a referrer, another digest algorithm and type."""
    world.image("latest")
    world.image("latest", "a/b/c", annotations={"n": "1"})
    child = world.image(annotations={"n": "2"})
    content = image(annotations={"n": "2"})
    world.put(
        index({"mediaType": OCI_IMAGE, "digest": str(child), "size": len(content)}),
        OCI_INDEX,
        "index",
    )
    world.image(subject=descriptor(content, OCI_IMAGE))
    world.blob(b"in sha512", algorithm="sha512")
    world.put(b"of its own kind", "application/x.own", "odd", "odd")
    upload = done(world.repo().uploads.start())
    assert upload.id
    return world


def blob_path(digest):
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"


def kept(world):
    """Return the files that are copied, with their content."""
    return {
        path: world.read(path)
        for path in world.paths()
        if not {"_uploads", "_referrers", "twisted-registry"} & set(path.split("/"))
    }


def copied(source, target):
    return done(StoreCopy(source.driver, target.driver).run())


@pytest.fixture
def source():
    return filled(World())


@pytest.fixture(params=[World, DiskWorld], ids=["memory", "disk"])
def target(request):
    return request.param()


def test_everything_is_copied(source, target):
    result = copied(source, target)
    assert kept(target) == kept(source)
    assert not target.paths("twisted-registry")
    target.check()
    blobs = source.paths(BLOBS)
    assert (result.repositories, result.manifests, result.tags) == (3, 6, 4)
    assert (result.blobs, result.present, result.damaged) == (len(blobs), 0, [])
    assert result.bytes == sum(len(source.read(path)) for path in blobs)
    subject = Digest.of(image(annotations={"n": "2"}))
    assert target.referrers(subject) == source.referrers(subject)
    stored = done(target.repo("odd").tags.resolve("odd"))
    assert stored == Digest.of(b"of its own kind")


def test_referrers_of_a_copied_store_are_listed_without_reading_them(source, target):
    copied(source, target)
    subject = Digest.of(image(annotations={"n": "2"}))
    (referrer,) = source.referrers(subject)
    target.restart()
    assert target.referrers(subject) == [referrer]
    assert ("get", layout.blob_data(referrer)) not in target.driver.calls


def test_second_run_copies_only_what_is_new(source, target):
    copied(source, target)
    again = copied(source, target)
    assert (again.blobs, again.manifests, again.tags) == (0, 0, 0)
    assert again.present == len(source.paths(BLOBS))
    source.image("latest", annotations={"n": "3"})
    result = copied(source, target)
    assert (result.blobs, result.manifests, result.tags) == (1, 1, 1)
    assert kept(target) == kept(source)


def test_copy_interrupted_at_any_step_shows_complete_images_only():
    source, fatal = filled(World()), 0
    complete = kept(source)
    while True:
        target = World()
        target.driver.before = dies_at(fatal)
        try:
            copied(source, target)
        except RegistryError:
            pass
        else:
            break
        target.restart()
        target.check()
        assert_whole(target)
        copied(source, target)
        assert kept(target) == complete
        assert not target.paths("twisted-registry")
        fatal += 1
    assert fatal > 60


def assert_whole(world):
    """Check that each linked manifest has everything that it refers to."""
    for path in world.paths(f"{BLOBS[:-5]}repositories"):
        name, _, rest = path.removeprefix(f"{BLOBS[:-5]}repositories/").partition("/_manifests/")
        if rest.startswith("revisions/") and rest.endswith("/link"):
            digest = Digest.parse(world.read(path).decode())
            _, manifest = done(world.repo(name).manifests.get_parsed(digest))
            for part in manifest.blobs:
                assert done(world.repo(name).blobs.size(part.digest)) == part.size
            for part in manifest.manifests:
                assert done(world.repo(name).manifests.get_parsed(part.digest)) is not None


def test_image_pushed_during_the_copy_is_copied_completely_or_not_at_all():
    number = 0
    while True:
        source, target = filled(World()), World()
        pushed = []

        def push(at, _action, _path, source=source, pushed=pushed, number=number):
            if at == number and not pushed:
                pushed.append(number)
                layer = b"pushed meanwhile"
                source.driver.before = lambda *_: None
                source.blob(layer)
                source.image("latest", layers=[descriptor(layer)])
                source.image("zz", layers=[descriptor(layer)])

        source.driver.calls.clear()
        source.driver.before = push
        copied(source, target)
        target.check()
        assert_whole(target)
        if not pushed:
            break
        copied(source, target)
        assert kept(target) == kept(source)
        number += 1
    assert number > 60


def test_damaged_blob_is_not_copied_nor_what_refers_to_it(source, target):
    layer, digest = b"damaged later", Digest.of(b"damaged later")
    source.blob(layer)
    broken = source.image("broken", layers=[descriptor(layer)])
    source.write(blob_path(digest), b"other bytes!!")
    result = copied(source, target)
    assert result.damaged == [
        f"{digest}: its bytes are those of {Digest.of(b'other bytes!!')}",
        f"a/b@{broken}: not copied: {digest}, which it refers to, cannot be read",
    ]
    assert "broken" not in target.tags()
    assert "latest" in target.tags()
    target.check()
    assert_whole(target)
    # A second run copies it after its repair.
    source.write(blob_path(digest), layer)
    assert copied(source, target).damaged == []
    assert "broken" in target.tags()


def test_damaged_manifest_is_not_copied(source, target):
    doomed = source.image("doomed", annotations={"n": "4"})
    source.write(blob_path(doomed), b"torn")
    result = copied(source, target)
    assert f"a/b@{doomed}: not copied: its content is missing or damaged" in result.damaged
    assert "doomed" not in target.tags()


def test_links_torn_by_a_crash_are_not_copied(source, target):
    layer = source.blob(b"of an empty link")
    path = f"docker/registry/v2/repositories/a/b/_layers/sha256/{layer.hex}/link"
    source.write(path, b"")
    revision = source.image("torn", annotations={"n": "5"})
    torn = f"docker/registry/v2/repositories/a/b/_manifests/revisions/sha256/{revision.hex}/link"
    source.write(torn, b"sha256:")
    result = copied(source, target)
    assert result.damaged == []
    assert path not in target.paths()
    assert torn not in target.paths()
    assert "torn" not in target.tags()


def test_sparse_index_is_copied_without_its_missing_children(target):
    source = World()
    away = descriptor(b"not here", OCI_IMAGE)
    path = f"docker/registry/v2/repositories/s/_manifests/revisions/sha256/{'{}'}/link"
    content = index(away)
    digest = Digest.of(content)
    source.write(blob_path(digest), content)
    source.write(path.format(digest.hex), str(digest).encode())
    result = copied(source, target)
    assert (result.manifests, result.damaged) == (1, [])


def test_torn_blob_at_the_destination_is_replaced(source, target):
    digest = Digest.of(b"layer")
    target.write(blob_path(digest), b"")
    copied(source, target)
    assert target.read(blob_path(digest)) == b"layer"


def test_blob_that_was_corrupted_on_the_way_is_read_again(source, target):
    blob = source.paths(BLOBS)[0]
    right, reads = source.read(blob), []

    def spoil(_number, action, path):
        if (action, path) == ("open", blob):
            reads.append(path)
            if len(reads) == 1:
                source.write(path, bytes([right[0] ^ 1]) + right[1:])

    def mend(_number, action, path):
        if (action, path) == ("open", blob):
            source.write(path, right)

    source.driver.before, source.driver.after = spoil, mend
    result = copied(source, target)
    assert len(reads) == 2
    assert result.damaged == []
    assert target.read(blob) == right


def test_failure_of_either_store_ends_the_copy(source, target):
    for world in source, target:
        world.driver.before = fails_at(len(world.driver.calls) + 20)
        with pytest.raises(RegistryError):
            copied(source, target)
        world.driver.before = lambda *_: None
    copied(source, target)
    assert kept(target) == kept(source)


def test_progress_reaches_the_total(source, target):
    copy = StoreCopy(source.driver, target.driver)
    assert (copy.processed_bytes, copy.total) == (0, 0)
    done(copy.run())
    assert copy.processed_bytes == copy.total > 0
    again = StoreCopy(source.driver, target.driver)
    done(again.run())
    assert again.processed_bytes == copy.total


def test_unknown_files_are_copied_unchanged(source, target):
    path = "docker/registry/v2/repositories/a/b/_manifests/tags/latest/own"
    source.write(path, b"1")
    copied(source, target)
    assert target.read(path) == b"1"
