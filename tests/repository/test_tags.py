"""Tags: order, pages, invalid folders, and leftovers of crashes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.repository.watched_driver import Pauses, fails_at
from tests.repository.worlds import DiskWorld, World, begin, done, listed, result_of
from tests.storage.filesystem.power_loss import driver_on
from tests.support.examples import examples
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import inventory, layout
from twisted_registry.repository.manifests import Precondition
from twisted_registry.repository.policy import Policy, TagSelector
from twisted_registry.repository.registry import Registry

DIGEST = Digest.of(b"manifest")
NAMES = st.sets(st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,3}", fullmatch=True), max_size=12)


def set_tags(world, *names):
    for name in names:
        assert done(world.repo().tags.set(name, DIGEST))


def page(world, after="", limit=100):
    return done(world.repo().tags.page(after, limit))


def test_repository_without_tags(world):
    assert page(world) == ([], False)
    assert done(world.repo().tags.resolve("v1")) is None
    assert done(listed(world.repo().tags.pages())) == []


def test_a_tag_names_a_manifest_and_moves(world):
    set_tags(world, "v1")
    assert done(world.repo().tags.resolve("v1")) == DIGEST
    other = Digest.of(b"other", "sha512")
    done(world.repo().tags.set("v1", other))
    assert done(world.repo().tags.resolve("v1")) == other
    for digest in (DIGEST, other):
        assert world.read(layout.tag_index_link("a/b", "v1", digest)).decode() == str(digest)
    assert page(world) == (["v1"], False)


def test_only_new_does_not_move_a_tag(world):
    store = world.repo().tags
    assert done(store.set("v1", DIGEST, only_new=True))
    assert not done(store.set("v1", Digest.of(b"other"), only_new=True))
    assert done(store.resolve("v1")) == DIGEST
    world.write(layout.tag_current_link("a/b", "v1"), b"torn")
    assert done(store.set("v1", Digest.of(b"other"), only_new=True))
    assert done(store.resolve("v1")) == Digest.of(b"other")


def test_tags_are_ordered_by_code_points(world):
    names = ["_", "1", "10", "2", "A", "Z", "a", "a-b", "a.b", "a_b", "ab", "b"]
    set_tags(world, *reversed(names))
    assert page(world) == (sorted(names), False)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4])
def test_pages_of_tags(world, limit):
    set_tags(world, "a", "b", "c")
    assert page(world, "", limit) == (["a", "b", "c"][:limit], limit < 3)
    assert page(world, "b", limit) == (["c"][:limit], limit < 1)
    assert page(world, "bb", limit) == (["c"][:limit], limit < 1)
    assert page(world, "c", limit) == ([], False)
    assert page(world, "zzz", limit) == ([], False)


@settings(max_examples=examples(60))
@given(NAMES, NAMES, st.integers(1, 5), st.text(max_size=3))
def test_pages_of_any_length_give_every_tag_once(names, torn, limit, after):
    world = World()
    set_tags(world, *names)
    for name in torn - names:
        # A folder without a link: a crash between the two links of a push.
        world.write(layout.tag_index_link("a/b", name, DIGEST), b"x")
    found, last = [], after
    while True:
        some, more = page(world, last, limit)
        assert len(some) == limit or (len(some) < limit and not more)
        found += some
        if not more:
            break
        last = some[-1]
    assert found == sorted(name for name in names if name > after)


def test_many_invalid_names_do_not_end_the_list(world, monkeypatch):
    monkeypatch.setattr(inventory, "_PAGE_ENTRIES", 3)
    for number in range(20):
        world.write(layout.tag_index_link("a/b", f"b{number:02}", DIGEST), b"x")
    set_tags(world, "a", "c", "d")
    assert page(world, "", 2) == (["a", "c"], True)
    assert page(world, "a", 5) == (["c", "d"], False)
    assert done(listed(world.repo().tags.pages())) == [["a", "c", "d"]]
    set_tags(world, "e", "f")
    assert done(listed(world.repo().tags.pages("a"))) == [["c", "d", "e"], ["f"]]


def test_folders_that_are_no_tags_are_not_listed(world):
    set_tags(world, "good")
    folder = layout.tags_folder("a/b")
    world.write(f"{folder}/file", b"x")
    world.write(f"{folder}/-bad/current/link", b"x")
    world.write(f"{folder}/{'a' * 129}/current/link", b"x")
    world.write(f"{folder}/sp ace/current/link", b"x")
    world.write(f"{folder}/torn/current/link", b"")
    world.write(f"{folder}/folder/current/link/x", b"x")
    assert page(world) == (["good"], False)
    assert done(world.repo().tags.resolve("torn")) is None


def test_deleted_tag_leaves_no_files(world):
    set_tags(world, "v1", "v2")
    done(world.repo().tags.delete("v1"))
    assert page(world) == (["v2"], False)
    assert not world.paths(layout.tag_folder("a/b", "v1"))
    with pytest.raises(RegistryError) as caught:
        done(world.repo().tags.delete("v1"))
    assert caught.value.code is ErrorCode.MANIFEST_UNKNOWN


def test_all_tags_of_a_digest_are_deleted(world, monkeypatch):
    monkeypatch.setattr(inventory, "_PAGE_ENTRIES", 4)
    set_tags(world, *(f"old{number:02}" for number in range(20)))
    done(world.repo().tags.set("new", Digest.of(b"other")))
    world.write(layout.tag_current_link("a/b", "torn"), b"")
    removed = done(world.repo().tags.delete_tags_of(DIGEST))
    assert removed == [f"old{number:02}" for number in range(20)]
    assert page(world) == (["new"], False)


@pytest.mark.parametrize("asked", ["page", "delete_all_of", "delete_all_of indexed"])
def test_failing_store_is_not_an_empty_list(world, asked):
    set_tags(world, "v1")
    store = world.repo().tags
    ask = {
        "page": lambda: store.page("", 100),
        "delete_all_of": lambda: store.delete_tags_of(DIGEST),
        "delete_all_of indexed": lambda: store.delete_tags_of(DIGEST, indexed=True),
    }[asked]
    before = len(world.driver.calls)
    done(ask())
    calls = len(world.driver.calls) - before
    set_tags(world, "v1")
    for number in range(calls):
        world.driver.before = fails_at(len(world.driver.calls) + number)
        with pytest.raises(RegistryError) as caught:
            done(ask())
        assert caught.value.code is ErrorCode.UNAVAILABLE


# Another process over the same disk.


def push(repository, content, **more):
    digest = Digest.of(content)
    return begin(repository.manifests.put(digest, content, "x/y", ("v1",), **more))


def test_delete_on_another_process_keeps_a_tag_that_is_set_meanwhile():
    world = DiskWorld()
    other = Registry(driver_on(world.disk, world.clock), world.clock)
    result_of(push(world.repo(), b'{"old": 1}'))
    world.driver.before = pauses = Pauses("delete", "tags/v1")
    deleting = begin(world.repo().manifests.delete(Digest.of(b'{"old": 1}')))
    (_,) = pauses.waiting  # it has read the old link, and is about to delete the tag
    setting = push(world.repo(registry=other), b'{"new": 1}')
    world.clock.pump([0.01] * 10)
    assert not setting.called
    pauses.release()
    assert result_of(deleting) == ["v1"]
    world.clock.pump([0.01] * 10)
    result_of(setting)
    assert done(world.repo().tags.resolve("v1")) == Digest.of(b'{"new": 1}')
    assert world.disk.descriptors == 0


def test_precondition_excludes_another_process():
    world = DiskWorld()
    other = Registry(driver_on(world.disk, world.clock), world.clock)
    result_of(push(world.repo(), b'{"old": 1}'))
    world.driver.before = pauses = Pauses("put", "tags/v1/current/link")
    setting = push(world.repo(), b'{"new": 1}')
    (_,) = pauses.waiting
    unchanged = Precondition(frozenset({str(Digest.of(b'{"old": 1}'))}))
    failing = push(world.repo(registry=other), b'{"newer": 1}', precondition=unchanged)
    world.clock.pump([0.01] * 10)
    pauses.release()
    result_of(setting)
    world.clock.pump([0.01] * 10)
    with pytest.raises(RegistryError) as refused:
        result_of(failing)
    assert refused.value.code == ErrorCode.PRECONDITION_FAILED
    assert done(world.repo().tags.resolve("v1")) == Digest.of(b'{"new": 1}')


def immutable_world(world):
    """Return the tags of a registry over the same store in which ``v1`` is immutable."""
    choice = TagSelector.parse(["a/b"], ["v*"])
    return Registry(world.driver, world.clock, Policy(immutable=(choice,))).repository("a/b").tags


def test_an_immutable_tag_is_set_once(world):
    store, other = immutable_world(world), Digest.of(b"other")
    assert done(store.set("v1", DIGEST))
    assert done(store.set("v1", DIGEST))
    assert not done(store.set("v1", DIGEST, only_new=True))
    for only_new in (False, True):
        with pytest.raises(RegistryError) as caught:
            done(store.set("v1", other, only_new=only_new))
        assert caught.value.code is ErrorCode.DENIED
    assert done(store.resolve("v1")) == DIGEST


def test_torn_immutable_tag_may_be_set_again(world):
    store = immutable_world(world)
    assert done(store.set("v1", DIGEST))
    world.write(layout.tag_current_link("a/b", "v1"), b"")
    assert done(store.set("v1", Digest.of(b"other")))


def test_tag_is_deleted_only_if_it_is_unchanged(world):
    set_tags(world, "v1")
    store = world.repo().tags

    def pushed():
        return result_of(world.driver.stat(layout.tag_current_link("a/b", "v1"))).modified / 1e9

    first = pushed()
    assert not done(store.delete_if_unchanged("v1", Digest.of(b"other"), first))
    world.clock.advance(1)
    set_tags(world, "v1")
    if pushed() != first:
        assert not done(store.delete_if_unchanged("v1", DIGEST, first)), (
            "it was pushed again meanwhile"
        )
    assert done(store.delete_if_unchanged("v1", DIGEST, pushed()))
    assert not done(store.delete_if_unchanged("v1", DIGEST, first))
    assert done(store.resolve("v1")) is None
