"""What was read before is only believed while a look at the store says that it is the same."""

import pytest
from domain import GlancingWorld, done, image, result_of

from twisted_registry.digest import Digest
from twisted_registry.manifest import OCI_IMAGE
from twisted_registry.repository import layout
from twisted_registry.repository.recent import Recent


@pytest.fixture
def world():
    return GlancingWorld()


@pytest.fixture
def recent(world):
    return Recent(world.driver)


def reads(world):
    return [path for action, path in world.driver.calls if action == "get"]


def stored(world, content):
    digest = Digest.of(content)
    world.write(layout.blob(digest), content)
    return digest


def test_a_link_is_read_once(world, recent):
    digest = Digest.of(b"x")
    world.write("link", str(digest).encode())
    for _ in range(3):
        assert done(recent.link("link")) == digest
    assert reads(world) == ["link"]


def test_a_link_that_changed_is_read_again(world, recent):
    for content in (b"one", b"two", b"one"):
        digest = Digest.of(content)
        world.write("link", str(digest).encode())
        assert done(recent.link("link")) == digest
    world.remove("link")
    assert done(recent.link("link")) is None
    world.write("link", b"torn")
    assert done(recent.link("link")) is None


def test_a_store_that_can_not_be_looked_at_is_read_each_time(world, recent):
    world.driver.glances = False
    digest = stored(world, b"{}")
    world.write("link", str(digest).encode())
    for _ in range(2):
        assert done(recent.link("link")) == digest
        assert done(recent.content(digest)).content == b"{}"
        assert done(recent.size(digest)) == 2
    assert reads(world) == ["link", layout.blob(digest)] * 2


def test_a_manifest_is_read_once(world, recent):
    digest = stored(world, image())
    for _ in range(3):
        held = done(recent.content(digest))
        assert (held.content, held.declared) == (image(), OCI_IMAGE)
    assert reads(world) == [layout.blob(digest)]


def test_a_manifest_that_was_damaged_or_removed_is_not_kept(world, recent):
    digest = stored(world, image())
    assert done(recent.content(digest)) is not None
    world.write(layout.blob(digest), b"damaged")
    assert done(recent.content(digest)) is None
    world.write(layout.blob(digest), image())
    assert done(recent.content(digest)).content == image()
    world.remove(layout.blob(digest))
    assert done(recent.content(digest)) is None
    assert done(recent.size(digest)) is None


def test_a_change_while_it_is_read_is_seen_by_the_next(world, recent):
    first, second = Digest.of(b"1"), Digest.of(b"2")
    world.write("link", str(first).encode())

    def moved_on(_number, action, _path):
        if action == "get":
            world.write("link", str(second).encode())

    world.driver.after = moved_on
    assert done(recent.link("link")) == first
    world.driver.after = lambda *_: None
    assert done(recent.link("link")) == second


def test_no_more_is_kept_than_there_is_room_for(world):
    recent = Recent(world.driver, content_limit=25, link_limit=2)
    digests = [stored(world, b"%010d" % number) for number in range(3)]
    for digest in digests:
        done(recent.content(digest))
        path = f"link-{digest.hex}"
        world.write(path, str(digest).encode())
        done(recent.link(path))
    before = len(reads(world))
    for digest in digests[1:]:
        done(recent.content(digest))
        done(recent.link(f"link-{digest.hex}"))
    assert len(reads(world)) == before
    done(recent.content(digests[0]))
    done(recent.link(f"link-{digests[0].hex}"))
    assert len(reads(world)) == before + 2


def test_what_is_larger_than_the_room_is_not_kept(world):
    recent = Recent(world.driver, content_limit=9)
    digest = stored(world, b"0123456789")
    for _ in range(2):
        assert done(recent.content(digest)).content == b"0123456789"
    assert len(reads(world)) == 2


def test_the_gate_is_asked_of_what_is_kept(world):
    world.image("latest")
    digest = done(world.repo().tags.resolve("latest"))
    done(world.repo().manifests.get(digest))
    before = len(world.gate.asked)
    calls = len(world.driver.calls)
    done(world.repo().manifests.get(digest))
    assert len(world.gate.asked) == before + 1
    assert len(world.driver.calls) == calls, "a second pull reads nothing"
    world.gate.condemned.add(digest)
    assert done(world.repo().manifests.parsed(digest)) is None


def test_another_process_is_seen_at_once(world):
    """Two registries over one store: a tag moved or deleted by one is so for the other."""
    world.image("latest")
    other = world.another()
    mine, theirs = world.repo(), world.repo(registry=other)
    first = done(mine.tags.resolve("latest"))
    done(mine.manifests.get(first))
    content = image(annotations={"v": "2"})
    second = Digest.of(content)
    done(theirs.manifests.put(second, content, OCI_IMAGE, ["latest"]))
    assert done(mine.tags.resolve("latest")) == second
    done(theirs.manifests.delete(second))
    assert done(mine.tags.resolve("latest")) is None
    assert done(mine.manifests.parsed(second)) is None
    assert result_of(world.memory.get(layout.blob(second), 10**6)) == content
