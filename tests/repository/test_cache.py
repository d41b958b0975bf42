"""The metadata cache: each hit is validated by a stat."""

import pytest

from tests.repository.worlds import PeekWorld, done, image, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import layout
from twisted_registry.repository.cache import ENTRY_OVERHEAD_BYTES, LRUCache, MetadataCache

OTHER = "application/vnd.example.other+json"
UNTYPED = b'{"schemaVersion": 2}'


@pytest.fixture
def world():
    return PeekWorld()


@pytest.fixture
def cache(world):
    return MetadataCache(world.driver)


def reads(world):
    return [path for action, path in world.driver.calls if action == "get"]


def stored(world, content):
    digest = Digest.of(content)
    world.write(layout.blob_data(digest), content)
    return digest


def test_a_link_is_read_once(world, cache):
    digest = Digest.of(b"x")
    world.write("link", str(digest).encode())
    for _ in range(3):
        assert done(cache.read_link("link")) == digest
    assert reads(world) == ["link"]


def test_a_link_that_changed_is_read_again(world, cache):
    for content in (b"one", b"two", b"one"):
        digest = Digest.of(content)
        world.write("link", str(digest).encode())
        assert done(cache.read_link("link")) == digest
    world.remove("link")
    assert done(cache.read_link("link")) is None
    world.write("link", b"torn")
    assert done(cache.read_link("link")) is None


def test_without_peek_every_call_reads_the_store(world, cache):
    world.driver.can_peek = False
    digest = stored(world, b"{}")
    world.write("link", str(digest).encode())
    for _ in range(2):
        assert done(cache.read_link("link")) == digest
        assert done(cache.read_manifest(digest)).content == b"{}"
        assert done(cache.blob_size(digest)) == 2
    assert reads(world) == ["link", layout.blob_data(digest)] * 2


def test_a_manifest_is_read_once(world, cache):
    digest = stored(world, image())
    for _ in range(3):
        held = done(cache.read_manifest(digest))
        assert (held.content, held.media_type) == (image(), OCI_IMAGE)
    assert reads(world) == [layout.blob_data(digest)]


def test_damaged_or_removed_manifest_is_not_returned_from_the_cache(world, cache):
    digest = stored(world, image())
    assert done(cache.read_manifest(digest)) is not None
    world.write(layout.blob_data(digest), b"damaged")
    assert done(cache.read_manifest(digest)) is None
    world.write(layout.blob_data(digest), image())
    assert done(cache.read_manifest(digest)).content == image()
    world.remove(layout.blob_data(digest))
    assert done(cache.read_manifest(digest)) is None
    assert done(cache.blob_size(digest)) is None


def test_change_during_a_read_is_seen_by_the_next_read(world, cache):
    first, second = Digest.of(b"1"), Digest.of(b"2")
    world.write("link", str(first).encode())

    def moved_on(_number, action, _path):
        if action == "get":
            world.write("link", str(second).encode())

    world.driver.after = moved_on
    assert done(cache.read_link("link")) == first
    world.driver.after = lambda *_: None
    assert done(cache.read_link("link")) == second


def test_manifest_damaged_in_transfer_is_read_again(world, cache):
    digest = stored(world, image())
    path, answers = layout.blob_data(digest), [b"damaged", image()]

    def damage_the_first(_number, action, at):
        if (action, at) == ("get", path):
            world.write(path, answers[len(reads(world)) % 2 - 1])

    world.driver.before = damage_the_first
    assert done(cache.read_manifest(digest)).content == image()
    assert reads(world) == [path, path]


def test_least_recently_used_entries_are_evicted(world):
    cache = MetadataCache(
        world.driver, max_content_bytes=2 * (10 + ENTRY_OVERHEAD_BYTES), max_links=2
    )
    digests = [stored(world, b"%010d" % number) for number in range(3)]
    for digest in digests:
        done(cache.read_manifest(digest))
        path = f"link-{digest.hex}"
        world.write(path, str(digest).encode())
        done(cache.read_link(path))
    before = len(reads(world))
    for digest in digests[1:]:
        done(cache.read_manifest(digest))
        done(cache.read_link(f"link-{digest.hex}"))
    assert len(reads(world)) == before
    done(cache.read_manifest(digests[0]))
    done(cache.read_link(f"link-{digests[0].hex}"))
    assert len(reads(world)) == before + 2


def test_manifest_larger_than_the_cache_is_not_cached(world):
    cache = MetadataCache(world.driver, max_content_bytes=9 + ENTRY_OVERHEAD_BYTES)
    digest = stored(world, b"0123456789")
    for _ in range(2):
        assert done(cache.read_manifest(digest)).content == b"0123456789"
    assert len(reads(world)) == 2


def test_gate_is_asked_about_cached_manifests(world):
    world.image("latest")
    digest = done(world.repo().tags.resolve("latest"))
    done(world.repo().manifests.get(digest))
    before = len(world.gate.asked)
    calls = len(world.driver.calls)
    done(world.repo().manifests.get(digest))
    assert len(world.gate.asked) == before + 1
    assert len(world.driver.calls) == calls, "a second pull reads nothing"
    world.gate.condemned.add(digest)
    assert done(world.repo().manifests.get(digest)).digest == digest


def test_second_pull_stats_each_file_once_and_reads_none(world):
    world.image("latest")
    first = done(world.repo().manifests.get("latest"))
    calls, peeks = len(world.driver.calls), len(world.driver.peeks)
    assert done(world.repo().manifests.get("latest")) == first
    assert len(world.driver.calls) == calls
    assert world.driver.peeks[peeks:] == [
        layout.tag_current_link("a/b", "latest"),
        layout.revision_link("a/b", first.digest),
        layout.blob_data(first.digest),
    ]
    done(world.repo().manifests.get(first.digest))
    peeks = len(world.driver.peeks)
    assert done(world.repo().manifests.get(first.digest)) == first
    assert len(world.driver.peeks) == peeks + 2


def blob_of(world, digest):
    """Return the content of a blob."""
    pieces = []
    result_of(done(world.repo().blobs.open_whole(digest)).feed(pieces.append))
    return b"".join(pieces)


def test_second_pull_of_a_blob_does_not_read_the_link_again(world):
    digest = world.blob(b"content")
    assert blob_of(world, digest) == b"content"
    reads_before, asked = len(reads(world)), len(world.gate.asked)
    assert blob_of(world, digest) == b"content"
    assert len(reads(world)) == reads_before
    assert world.gate.asked[asked:] == [("a/b", digest)]


@pytest.mark.parametrize("lost", ["link", "blob"])
@pytest.mark.parametrize("left", [None, b""])
def test_blob_lost_after_a_pull_is_unknown(world, lost, left):
    digest = world.blob(b"content")
    path = layout.blob_data(digest) if lost == "blob" else layout.layer_link("a/b", digest)
    for _ in range(2):
        content = world.read(path)
        blob_of(world, digest)
        world.remove(path)
        if left is not None:
            world.write(path, left)
        for _ in range(2):
            with pytest.raises(RegistryError) as caught:
                blob_of(world, digest)
            assert caught.value.code is ErrorCode.BLOB_UNKNOWN
        world.write(path, content)
        assert blob_of(world, digest) == b"content"


@pytest.mark.parametrize("lost", ["tag", "revision", "blob"])
def test_manifest_that_lost_a_file_after_a_pull_is_unknown(world, lost):
    """Each file that a pull needs is validated by every pull."""
    world.image("latest")
    for _ in range(2):
        stored = done(world.repo().manifests.get("latest"))
    path = {
        "tag": layout.tag_current_link("a/b", "latest"),
        "revision": layout.revision_link("a/b", stored.digest),
        "blob": layout.blob_data(stored.digest),
    }[lost]
    content = world.read(path)
    world.remove(path)
    for _ in range(2):
        assert unknown(world, "latest")
    world.write(path, content)
    assert done(world.repo().manifests.get("latest")) == stored
    world.write(path, b"torn")
    is_link = lost != "blob"
    assert refusal(world, "latest") is (
        ErrorCode.UNAVAILABLE if is_link else ErrorCode.MANIFEST_UNKNOWN
    )


def refusal(world, reference):
    with pytest.raises(RegistryError) as caught:
        done(world.repo().manifests.get(reference))
    return caught.value.code


def unknown(world, reference):
    return refusal(world, reference) is ErrorCode.MANIFEST_UNKNOWN


def test_gate_is_asked_about_every_pull(world):
    world.image("latest")
    for number in range(3):
        digest = done(world.repo().manifests.get("latest")).digest
        assert world.gate.asked[-1] == ("a/b", digest)
        assert world.gate.asked.count(("a/b", digest)) == number + 1
    # The gate is told; its verdict does not matter.
    world.gate.condemned.add(digest)
    assert done(world.repo().manifests.get("latest")).digest == digest


def test_cached_pull_belongs_to_one_repository(world):
    world.image("latest")
    done(world.repo().manifests.get("latest"))
    with pytest.raises(RegistryError):
        done(world.repo("b").manifests.get("latest"))


def test_every_pull_is_announced(world):
    world.image("latest")
    world.listener.take()
    for _ in range(3):
        done(world.repo().manifests.get("latest"))
    assert world.listener.brief() == [("pull", "manifest", "latest")] * 3


def test_stored_media_type_is_read_each_time(world):
    """The type is in a file beside the link, which another process may change."""
    digest = world.put(UNTYPED, OTHER, "latest")
    assert done(world.repo().manifests.get("latest")).media_type == OTHER
    world.write(layout.revision_media_type("a/b", digest), b"application/vnd.example.more+json")
    assert done(world.repo().manifests.get("latest")).media_type.endswith("more+json")


def test_number_of_cached_pulls_is_bounded(world):
    cache = MetadataCache(world.driver, max_pulls=1)
    world.image("latest")
    digest = done(world.repo().tags.resolve("latest"))

    def pull(reference):
        done(cache.read_link(layout.tag_current_link("a/b", "latest")))
        done(cache.read_link(layout.revision_link("a/b", digest)))
        done(cache.read_manifest(digest))
        cache.remember_pull("a/b", reference, digest)

    pull("latest")
    pull(digest)
    assert cache.cached_pull("a/b", "latest") is None
    assert cache.cached_pull("a/b", digest).content == image()


def test_pull_of_files_that_are_not_cached_is_not_cached(world):
    """Links or a manifest are not cached, or belong to another pull."""
    world.image("latest")
    digest = done(world.repo().tags.resolve("latest"))
    cache = MetadataCache(world.driver)
    cache.remember_pull("a/b", "latest", digest)
    assert cache.cached_pull("a/b", "latest") is None
    done(cache.read_link(layout.tag_current_link("a/b", "latest")))
    cache.remember_pull("a/b", "latest", Digest.of(b"another"))
    done(cache.read_link(layout.revision_link("a/b", digest)))
    cache.remember_pull("a/b", "latest", digest)
    assert cache.cached_pull("a/b", "latest") is None
    done(cache.read_manifest(digest))
    cache.remember_pull("a/b", "latest", digest)
    assert cache.cached_pull("a/b", "latest") is not None


def test_pull_of_an_evicted_manifest_is_not_cached(world):
    cache = MetadataCache(world.driver, max_content_bytes=ENTRY_OVERHEAD_BYTES + len(image()))
    world.image("latest")
    digest = done(world.repo().tags.resolve("latest"))
    done(cache.read_link(layout.revision_link("a/b", digest)))
    done(cache.read_manifest(digest))
    cache.remember_pull("a/b", digest, digest)
    assert cache.cached_pull("a/b", digest) is not None
    done(cache.read_manifest(stored(world, b"{}")))
    assert cache.cached_pull("a/b", digest) is None


def test_changes_by_another_process_are_seen_at_once(world):
    """A tag that one of two registries moves or deletes is changed for the other."""
    world.image("latest")
    other = world.another()
    mine, theirs = world.repo(), world.repo(registry=other)
    first = done(mine.tags.resolve("latest"))
    done(mine.manifests.get(first))
    assert done(mine.manifests.get("latest")).digest == first
    content = image(annotations={"v": "2"})
    second = Digest.of(content)
    done(theirs.manifests.put(second, content, OCI_IMAGE, ["latest"]))
    assert done(mine.tags.resolve("latest")) == second
    assert done(mine.manifests.get("latest")).digest == second
    done(theirs.manifests.delete(second))
    assert done(mine.tags.resolve("latest")) is None
    assert unknown(world, "latest")
    assert done(mine.manifests.get_parsed(second)) is None
    assert result_of(world.memory.get(layout.blob_data(second), 10**6)) == content


def test_least_recently_used_entries_are_evicted_by_weight():
    cache = LRUCache(3, len)
    two = "xx"
    cache.put("a", "x")
    cache.put("b", "x")
    assert cache.get("a") == "x"
    cache.put("c", two)
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == ("x", two)
    cache.put("c", "xxxx")
    assert cache.get("c") is None
    cache.put("d", two)
    assert cache.get("d") == two
