"""Existence checks: link, bytes, and the verdict of the gate."""

from __future__ import annotations

import pytest
from twisted.internet.defer import fail

from tests.repository.watched_driver import fails_at
from tests.repository.worlds import World, descriptor, done, image, index, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout
from twisted_registry.repository.cache import MemoryDescriptorCache
from twisted_registry.repository.presence import NullGate
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.interfaces import StorageError


def blob_size(world, digest, name="a/b"):
    return done(world.repo(name).store.presence.blob_size(name, digest))


def code_of(coroutine):
    with pytest.raises(RegistryError) as caught:
        done(coroutine)
    return caught.value.code


TORN = [b"", b"\n", b"sha256:", b"sha256:abc", b"\x00" * 71, b"\xff\xfe", b"nonsense" * 100]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_pushed_blob_exists(world, algorithm):
    digest = world.blob(b"x" * 10, algorithm=algorithm)
    assert blob_size(world, digest) == 10
    assert done(world.repo().blobs.size(digest)) == 10
    assert blob_size(world, digest, "other") is None


def test_empty_blob_exists(world):
    digest = world.blob(b"")
    assert blob_size(world, digest) == 0


@pytest.mark.parametrize("content", TORN)
def test_torn_link_counts_as_missing_until_the_next_push(world, content):
    digest = world.blob(b"x")
    world.write(layout.layer_link("a/b", digest), content)
    assert blob_size(world, digest) is None
    assert code_of(world.repo().blobs.size(digest)) is ErrorCode.BLOB_UNKNOWN
    world.blob(b"x")
    assert blob_size(world, digest) == 1


def test_link_may_end_with_a_newline(world):
    # As after a repair by hand.
    digest = world.blob(b"x")
    world.write(layout.layer_link("a/b", digest), f"{digest}\n".encode())
    assert blob_size(world, digest) == 1


def test_link_with_another_digest_counts_as_missing(world):
    digest, other = world.blob(b"x"), world.blob(b"y")
    world.write(layout.layer_link("a/b", digest), str(other).encode())
    assert blob_size(world, digest) is None


def test_link_to_missing_bytes_counts_as_missing(world):
    digest = world.blob(b"x")
    world.remove(layout.blob_data(digest))
    assert blob_size(world, digest) is None
    assert code_of(world.repo().blobs.open(digest)) is ErrorCode.BLOB_UNKNOWN
    world.blob(b"x")
    assert blob_size(world, digest) == 1


def test_empty_file_counts_as_missing(world):
    digest = world.blob(b"x")
    world.write(layout.blob_data(digest), b"")
    assert blob_size(world, digest) is None
    assert done(world.repo("other").blobs.mount(digest, None)) is None
    world.blob(b"x")
    assert blob_size(world, digest) == 1


def test_folder_in_place_of_bytes_counts_as_missing(world):
    digest = world.blob(b"x")
    world.remove(layout.blob_data(digest))
    world.write(f"{layout.blob_data(digest)}/x", b"x")
    assert blob_size(world, digest) is None


def test_failing_store_is_not_a_missing_blob(world):
    digest = world.blob(b"x")
    # The link is read; the bytes are only peeked at if the driver can.
    for number in range(1 if world.can_peek else 2):
        repository = world.repo()
        world.driver.before = fails_at(len(world.driver.calls) + number)
        with pytest.raises(RegistryError) as caught:
            done(repository.blobs.size(digest))
        assert (caught.value.code, caught.value.http_status) == (ErrorCode.UNAVAILABLE, 503)


# The gate: every existence check asks it.


def pushed(world):
    """Push a tagged image, and a referrer of a missing subject; return the three digests."""
    child = world.image("latest")
    subject = Digest.of(b"not there")
    referrer = world.put(image(subject=descriptor(b"not there")), OCI_IMAGE)
    return child, subject, referrer


def test_condemned_blob_is_missing_for_queries_but_can_be_pulled(world):
    pushed(world)
    digest = Digest.of(b"layer")
    world.gate.condemned.add(digest)
    assert code_of(world.repo().blobs.size(digest)) is ErrorCode.BLOB_UNKNOWN
    assert world.gate.asked[-1] == ("a/b", digest)
    assert done(world.repo().blobs.size(digest, for_pull=True)) == 5
    done(world.repo().blobs.open_whole(digest)).close()
    assert world.gate.asked[-2:] == [("a/b", digest)] * 2, "it is asked so that it knows"
    world.gate.condemned.clear()
    assert blob_size(world, digest) == 5


def test_condemned_blob_cannot_be_mounted(world):
    digest = world.blob(b"layer")
    other = world.repo("other")
    world.gate.condemned.add(digest)
    assert done(other.blobs.mount(digest, "a/b")) is None
    assert done(other.blobs.mount(digest, None)) is None
    assert {("a/b", digest), (None, digest)} <= set(world.gate.asked)
    assert not world.exists(layout.layer_link("other", digest))
    world.gate.condemned.clear()
    assert done(other.blobs.mount(digest, "a/b")) == 5
    assert done(world.repo("third").blobs.mount(digest, None)) == 5


@pytest.mark.parametrize("content", [b"{}", b"layer"])
def test_a_manifest_that_names_a_condemned_blob_is_refused(world, content):
    pushed(world)
    world.gate.condemned.add(Digest.of(content))
    with pytest.raises(RegistryError) as caught:
        world.put(image(annotations={"new": "x"}), OCI_IMAGE)
    assert caught.value.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    assert caught.value.detail == {"digests": [str(Digest.of(content))]}


def test_an_index_that_names_a_condemned_manifest_is_refused(world):
    child, _, _ = pushed(world)
    content = index(descriptor(image(), OCI_IMAGE))
    world.gate.condemned.add(child)
    with pytest.raises(RegistryError) as caught:
        world.put(content, OCI_INDEX)
    assert caught.value.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    world.gate.condemned.clear()
    world.put(content, OCI_INDEX)


def test_condemned_manifest_is_refused_for_queries_but_can_be_pulled(world):
    child, _, _ = pushed(world)
    repository = world.repo()
    for known in (False, True):  # the second time from the cache
        world.gate.condemned.clear()
        if known:
            done(repository.manifests.get(child))
        world.gate.condemned.add(child)
        assert code_of(repository.manifests.get(child, is_query=True)) is ErrorCode.UNAVAILABLE
        assert done(repository.manifests.get(child)).digest == child
        # A tag protects it.
        assert done(repository.manifests.get("latest", is_query=True)).digest == child


def test_deletes_do_not_ask_the_gate(world):
    child, _, _ = pushed(world)
    layer = Digest.of(b"layer")
    world.gate.condemned |= {child, layer}
    asked = len(world.gate.asked)
    assert done(world.repo().manifests.delete(child)) == ["latest"]
    done(world.repo().blobs.delete(layer))
    assert world.gate.asked[asked:] == []
    assert code_of(world.repo().manifests.delete(child)) is ErrorCode.MANIFEST_UNKNOWN
    assert code_of(world.repo().blobs.delete(layer)) is ErrorCode.BLOB_UNKNOWN


def test_condemned_referrer_is_listed_while_it_exists(world):
    _, subject, referrer = pushed(world)
    assert world.referrers(subject) == [referrer]
    world.gate.condemned.add(referrer)
    assert world.referrers(subject) == [referrer]


def test_pull_does_not_fail_if_the_gate_cannot_store_a_lease(world):
    """The disk may be full; a client that may skip a push gets an error."""
    child, _, _ = pushed(world)
    layer = Digest.of(b"layer")
    repository = world.repo()
    world.gate.may_report_present = lambda *_: fail(StorageError("lease", "full", full=True))
    for _ in range(2):
        for reference in ("latest", child):
            assert done(repository.manifests.get(reference)).digest == child
        done(repository.blobs.open_whole(layer)).close()
        assert done(repository.blobs.size(layer, for_pull=True)) == 5
    for query in (repository.manifests.get(child, is_query=True), repository.blobs.size(layer)):
        assert code_of(query) is ErrorCode.UNAVAILABLE


def test_null_gate_admits_everything():
    assert NullGate().may_report_present(None, Digest.of(b"")) is True


def test_blob_is_read_from_any_offset(world):
    digest = world.blob(b"0123456789")
    for offset, length, expected in ((0, None, b"0123456789"), (3, 4, b"3456"), (9, 99, b"9")):
        pieces = []
        reader = done(world.repo().blobs.open(digest, offset, length))
        assert reader.size == len(expected)
        reader.feed(pieces.append)
        assert b"".join(pieces) == expected


def test_offset_beyond_the_end_is_a_storage_error(world):
    digest = world.blob(b"x")
    assert code_of(world.repo().blobs.open(digest, 2)) is ErrorCode.UNAVAILABLE


def test_driver_without_urls_returns_none(world):
    digest = world.blob(b"x")
    assert done(world.repo().blobs.url(digest, "GET")) is None


def test_delete_of_a_blob_affects_one_repository(world):
    digest = world.blob(b"x")
    world.blob(b"x", "other")
    done(world.repo().blobs.delete(digest))
    assert blob_size(world, digest) is None
    assert blob_size(world, digest, "other") == 1
    assert code_of(world.repo().blobs.delete(digest)) is ErrorCode.BLOB_UNKNOWN


def test_concurrent_deletes_of_a_blob_both_succeed(world):
    digest = world.blob(b"x")
    world.driver.before = lambda _number, action, path: (
        world.remove(path) if action == "delete" else None
    )
    done(world.repo().blobs.delete(digest))
    assert blob_size(world, digest) is None


def test_blob_can_be_mounted_from_its_own_repository(world):
    digest = world.blob(b"x")
    assert done(world.repo().blobs.mount(digest, "a/b")) == 1
    assert done(world.repo().blobs.mount(Digest.of(b"none"), "a/b")) is None
    assert done(world.repo().blobs.mount(Digest.of(b"none"), None)) is None


def test_pull_of_a_whole_blob_is_announced(world):
    digest = world.blob(b"content")
    world.listener.take()
    reader = done(world.repo().blobs.open_whole(digest))
    assert reader.size == 7
    reader.close()
    assert world.listener.brief() == [("pull", "blob", None)]


@pytest.mark.parametrize("fault", ["no link", "no bytes", "no file"])
def test_pull_of_a_missing_blob_closes_what_was_opened(world, fault):
    """A reader that was opened meanwhile is closed."""
    digest = world.blob(b"content")
    if fault == "no link":
        world.remove(layout.layer_link("a/b", digest))
    elif fault == "no bytes":
        world.write(layout.blob_data(digest), b"")
    else:
        world.remove(layout.blob_data(digest))
    opened = []
    opening = world.driver.open

    class Watched:
        def __init__(self, reader):
            self.size = reader.size
            opened.append(self)

        def fileno(self):
            return 1

        def close(self):
            opened.remove(self)

    world.driver.open = lambda *args: opening(*args).addCallback(Watched)
    assert code_of(world.repo().blobs.open_whole(digest)) is ErrorCode.BLOB_UNKNOWN
    assert opened == []


def test_empty_blob_can_be_pulled(world):
    digest = world.blob(b"")
    done(world.repo().blobs.open_whole(digest)).close()


def test_pull_caches_a_size_and_never_a_link():
    world = World()
    world.registry = Registry(world.driver, world.clock, descriptors=MemoryDescriptorCache(10))
    digest = world.blob(b"layer")
    blobs = world.repo().blobs
    assert [done(blobs.size(digest, for_pull=True)) for _ in range(2)] == [5, 5]
    stats = [path for action, path in world.driver.calls if action == "stat"]
    assert stats.count(layout.blob_data(digest)) == 1
    # Queries before a push always ask the store.
    assert done(blobs.size(digest)) == 5
    world.remove(layout.blob_data(digest))
    assert code_of(blobs.size(digest)) is ErrorCode.BLOB_UNKNOWN
    world.remove(layout.layer_link("a/b", digest))
    assert code_of(blobs.size(digest, for_pull=True)) is ErrorCode.BLOB_UNKNOWN


def test_with_peek_no_size_is_cached(world):
    remembered = MemoryDescriptorCache(10)
    world.registry = Registry(world.driver, world.clock, descriptors=remembered)
    world.driver.can_peek = True
    digest = world.blob(b"layer")
    world.settle()
    world.clock.advance(10)
    assert done(world.repo().blobs.size(digest, for_pull=True)) == 5
    assert result_of(remembered.size(digest)) is None
