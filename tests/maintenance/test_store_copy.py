"""A store copied into another: whole, verified, again and again, beside pushes."""

from __future__ import annotations

import pytest

from tests.repository.watched_driver import dies_at, fails_at
from tests.repository.worlds import DiskWorld, World, descriptor, done, image, index
from twisted_registry.maintenance.store_copy import StoreCopy
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX

BLOBS = "docker/registry/v2/blobs"


def filled(world):
    """Two repositories with what there is: tags, an index, a referrer, other digests and types."""
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
    """What is to be copied, with its content."""
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
    told = copied(source, target)
    assert kept(target) == kept(source)
    assert not target.paths("twisted-registry")
    target.check()
    blobs = source.paths(BLOBS)
    assert (told.repositories, told.manifests, told.tags) == (3, 6, 4)
    assert (told.blobs, told.present, told.damaged) == (len(blobs), 0, [])
    assert told.bytes == sum(len(source.read(path)) for path in blobs)
    subject = Digest.of(image(annotations={"n": "2"}))
    assert target.referrers(subject) == source.referrers(subject)
    stored = done(target.repo("odd").tags.resolve("odd"))
    assert stored == Digest.of(b"of its own kind")


def test_a_second_run_copies_what_is_new(source, target):
    copied(source, target)
    again = copied(source, target)
    assert (again.blobs, again.manifests, again.tags) == (0, 0, 0)
    assert again.present == len(source.paths(BLOBS))
    source.image("latest", annotations={"n": "3"})
    told = copied(source, target)
    assert (told.blobs, told.manifests, told.tags) == (1, 1, 1)
    assert kept(target) == kept(source)


def test_a_copy_that_dies_at_any_step_shows_nothing_that_is_not_whole():
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
    """Every manifest that is linked has all that it refers to."""
    for path in world.paths(f"{BLOBS[:-5]}repositories"):
        name, _, rest = path.removeprefix(f"{BLOBS[:-5]}repositories/").partition("/_manifests/")
        if rest.startswith("revisions/") and rest.endswith("/link"):
            digest = Digest.parse(world.read(path).decode())
            _, manifest = done(world.repo(name).manifests.get_parsed(digest))
            for part in manifest.blobs:
                assert done(world.repo(name).blobs.size(part.digest)) == part.size
            for part in manifest.manifests:
                assert done(world.repo(name).manifests.get_parsed(part.digest)) is not None


def test_what_is_pushed_meanwhile_is_copied_whole_or_not_at_all():
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


def test_damaged_bytes_are_left_out_with_what_refers_to_them(source, target):
    layer, digest = b"damaged later", Digest.of(b"damaged later")
    source.blob(layer)
    broken = source.image("broken", layers=[descriptor(layer)])
    source.write(blob_path(digest), b"other bytes!!")
    told = copied(source, target)
    assert told.damaged == [
        f"{digest}: its bytes are those of {Digest.of(b'other bytes!!')}",
        f"a/b@{broken}: left out: {digest}, which it refers to, can not be read",
    ]
    assert "broken" not in target.tags()
    assert "latest" in target.tags()
    target.check()
    assert_whole(target)
    # Once it is repaired, a second run brings it.
    source.write(blob_path(digest), layer)
    assert copied(source, target).damaged == []
    assert "broken" in target.tags()


def test_a_manifest_whose_bytes_are_damaged(source, target):
    doomed = source.image("doomed", annotations={"n": "4"})
    source.write(blob_path(doomed), b"torn")
    told = copied(source, target)
    assert f"a/b@{doomed}: left out: its bytes are missing or damaged" in told.damaged
    assert "doomed" not in target.tags()


def test_links_that_a_crash_left_empty_are_not_copied(source, target):
    layer = source.blob(b"of an empty link")
    path = f"docker/registry/v2/repositories/a/b/_layers/sha256/{layer.hex}/link"
    source.write(path, b"")
    revision = source.image("torn", annotations={"n": "5"})
    torn = f"docker/registry/v2/repositories/a/b/_manifests/revisions/sha256/{revision.hex}/link"
    source.write(torn, b"sha256:")
    told = copied(source, target)
    assert told.damaged == []
    assert path not in target.paths()
    assert torn not in target.paths()
    assert "torn" not in target.tags()


def test_what_a_sparse_index_leaves_out_is_left_out(target):
    source = World()
    away = descriptor(b"not here", OCI_IMAGE)
    path = f"docker/registry/v2/repositories/s/_manifests/revisions/sha256/{'{}'}/link"
    content = index(away)
    digest = Digest.of(content)
    source.write(blob_path(digest), content)
    source.write(path.format(digest.hex), str(digest).encode())
    told = copied(source, target)
    assert (told.manifests, told.damaged) == (1, [])


def test_a_torn_copy_at_the_destination_is_replaced(source, target):
    digest = Digest.of(b"layer")
    target.write(blob_path(digest), b"")
    copied(source, target)
    assert target.read(blob_path(digest)) == b"layer"


def test_bytes_that_were_spoiled_on_the_way_are_read_again(source, target):
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
    told = copied(source, target)
    assert len(reads) == 2
    assert told.damaged == []
    assert target.read(blob) == right


def test_a_store_that_breaks_down_ends_it(source, target):
    for world in source, target:
        world.driver.before = fails_at(len(world.driver.calls) + 20)
        with pytest.raises(RegistryError):
            copied(source, target)
        world.driver.before = lambda *_: None
    copied(source, target)
    assert kept(target) == kept(source)


def test_how_far_it_is(source, target):
    copy = StoreCopy(source.driver, target.driver)
    assert (copy.processed_bytes, copy.total) == (0, 0)
    done(copy.run())
    assert copy.processed_bytes == copy.total > 0
    again = StoreCopy(source.driver, target.driver)
    done(again.run())
    assert again.processed_bytes == copy.total


def test_files_that_nobody_knows_are_copied_as_they_are(source, target):
    path = "docker/registry/v2/repositories/a/b/_manifests/tags/latest/own"
    source.write(path, b"1")
    copied(source, target)
    assert target.read(path) == b"1"
