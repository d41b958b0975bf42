"""The catalog: order of whole names, pages, and requests."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from tests.repository.watched_driver import fails_at
from tests.repository.worlds import World, begin, done, listed, result_of
from tests.support.examples import examples
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import catalog, layout

COMPONENT = st.from_regex(r"[ab0]([ab0]|[._-][ab0]|__[ab0]|--[ab0]){0,2}", fullmatch=True)
NAME = st.lists(COMPONENT, min_size=1, max_size=4).map("/".join)
NAMES = st.sets(NAME, max_size=12)


def make(world, *names):
    for number, name in enumerate(names):
        mark = layout.layer_link if number % 2 else layout.revision_link
        world.write(mark(name, Digest.of(b"x")), b"x")


def page(world, after="", limit=100):
    return done(world.registry.catalog(after, limit))


def test_empty_store_has_no_repositories(world):
    assert page(world) == ([], False)
    assert done(world.repo("a").exists()) is False


def test_dash_and_dot_come_before_slash(world):
    names = ["a", "a-b", "a-b/c", "a.b", "a/b", "a/b-c", "a/b/c", "a0", "a0/b", "a_b", "ab"]
    assert names == sorted(names)
    make(world, *reversed(names))
    assert page(world) == (names, False)
    for position, name in enumerate(names):
        assert page(world, name) == (names[position + 1 :], False)
        assert page(world, f"{name}!") == (names[position + 1 :], False)


@settings(max_examples=examples(50))
@given(NAMES, NAMES, st.integers(1, 4))
@example({"a", "a-b", "a/b", "a.b/c", "a/b-c"}, {"a/c"}, 1)
@example({"a/b"}, {"a"}, 1)
def test_pages_of_any_length_give_all_names_in_order(names, empty, limit):
    world = World()
    make(world, *names)
    for name in empty - names:
        # A folder that has only an upload.
        world.write(layout.upload_started(name, "x"), b"x")
    found, after = [], ""
    while True:
        some, more = page(world, after, limit)
        assert len(some) == limit or not more
        found += some
        if not more:
            break
        after = some[-1]
    assert found == sorted(names)
    assert done(listed(catalog.walk_repositories(world.driver))) == sorted(names)


@settings(max_examples=examples(100))
@given(NAMES, st.one_of(NAME, st.text("ab0._-/", max_size=6), st.text(max_size=4)))
@example({"a/b", "a/c"}, "a/b")
@example({"a/b", "a/c"}, "a/")
@example({"a", "b"}, "/")
def test_after_need_not_be_a_repository(names, after):
    world = World()
    make(world, *names)
    assert page(world, after) == (sorted(name for name in names if name > after), False)


def test_page_of_zero_names_is_empty(world):
    make(world, "a")
    assert page(world, "", 0) == ([], True)
    assert page(world, "a", 0) == ([], False)


def test_page_does_not_read_the_rest_of_the_tree(world):
    make(world, *(f"n{number:03}/x" for number in range(200)))
    before = len(world.driver.calls)
    assert page(world, "", 2) == (["n000/x", "n001/x"], True)
    assert len(world.driver.calls) - before < 30


def test_folders_of_several_requests_are_listed_completely(world, monkeypatch):
    monkeypatch.setattr(catalog, "_FIRST_BATCH_FOLDERS", 3)
    names = [f"n{number:02}" for number in range(10)]
    make(world, *names)
    assert page(world) == (names, False)


@pytest.mark.parametrize(
    ("names", "most"),
    [
        ([f"n{number:04}" for number in range(1500)], 4),
        ([f"u{number:04}/app" for number in range(1500)], 6),
        ([f"u{number:04}/{app}" for number in range(400) for app in "abcd"], 20),
        ([f"{a}/{b}/{c}" for a in "abc" for b in "abcdefghij" for c in range(10, 60)], 30),
    ],
    ids=["one folder", "one each", "four each", "three levels"],
)
def test_page_needs_few_requests(world, names, most):
    make(world, *names)
    for after, expected in (("", names[:1000]), (names[700], names[701:])):
        before = len(world.driver.calls)
        assert page(world, after, 1000) == (expected, len(names) > 1000 and not after)
        assert len(world.driver.calls) - before <= most


def test_prefetched_folders_are_bounded(world, monkeypatch):
    monkeypatch.setattr(catalog, "_MAX_PREFETCHED", 5)
    names = sorted(f"{a}/{b}/{c}{d}" for a in "abc" for b in "abc" for c in "abc" for d in "bc")
    make(world, *names)
    assert page(world) == (names, False)
    assert page(world, "b/b") == (names[24:], False)


@pytest.mark.parametrize("each", [2, 3, 4, 5])
def test_folder_with_many_subfolders_is_listed_by_itself(world, monkeypatch, each):
    monkeypatch.setattr(catalog, "_MAX_SUBFOLDERS", each)
    names = ["a", "a-b", "a/0", "a/1", "a/2", "a/b", "a/b/c", "a/z", "b/c/d", "b/c/e", "b/c/f"]
    make(world, *names)
    world.write(layout.upload_started("b/c", "x"), b"x")
    assert page(world) == (names, False)
    for position, name in enumerate(names):
        assert page(world, name, 3) == (names[position + 1 :][:3], position < len(names) - 4)


def test_file_is_no_marker(world):
    world.write(f"{layout.repository_folder('a')}/_layers", b"x")
    assert page(world) == ([], False)
    assert not done(world.repo("a").exists())


def test_folders_that_are_no_repositories_are_not_listed(world):
    make(world, "good", "good/too")
    folder = layout.REPOSITORIES
    world.write(f"{folder}/file", b"x")
    world.write(f"{folder}/Upper/_layers/x", b"x")
    world.write(f"{folder}/good/Upper/_layers/x", b"x")
    world.write(f"{folder}/-bad/_manifests/x", b"x")
    world.write(f"{folder}/{'a' * 200}/{'b' * 200}/_layers/x", b"x")
    world.write(layout.upload_data("uploads/only", "x"), b"x")
    assert page(world) == (["good", "good/too"], False)
    assert not done(world.repo("uploads/only").exists())
    assert not done(world.repo("uploads").exists())


def test_repository_without_content_is_still_listed(world):
    digest = world.image("v1")
    done(world.repo().manifests.delete(digest))
    assert page(world) == (["a/b"], False)


def test_longest_and_deepest_names_are_listed(world):
    names = sorted(["a" * 255, "/".join("a" * 128)])
    assert {len(name) for name in names} == {255}
    make(world, *names)
    assert page(world) == (names, False)


def test_failing_store_is_not_an_empty_list(world):
    make(world, "a", "a/b")
    done(listed(catalog.walk_repositories(world.driver)))
    for number in range(len(world.driver.calls)):
        world.restart()
        world.driver.before = fails_at(number)
        with pytest.raises(RegistryError) as caught:
            page(world)
        assert caught.value.code is ErrorCode.UNAVAILABLE


def test_one_page_is_made_at_a_time(world):
    make(world, "a", "b")
    holding = []

    def hold(_number, action, _path):
        if action == "list_folders":
            holding.append(Deferred())
            return holding[-1]
        return None

    world.driver.before = hold
    first, second, third = (begin(world.registry.catalog("", 10)) for _ in range(3))
    assert len(holding) == 1
    # A client that waits, and one whose page is being made, disconnect.
    second.cancel()
    first.cancel()
    assert len(holding) == 2
    world.driver.before = lambda *_: None
    holding[1].callback(None)
    assert result_of(third) == (["a", "b"], False)
    for gone in (first, second):
        with pytest.raises(CancelledError):
            result_of(gone)
    assert page(world) == (["a", "b"], False)


def processor_time_s(names):
    """Return the processor time of a walk, the best of three."""
    world = World()
    make(world, *names)
    times = []
    for _ in range(3):
        start = time.thread_time()
        assert page(world, "", 10_000) == (names, False)
        times.append(time.thread_time() - start)
    return min(times)


def test_deep_tree_costs_little_more_than_a_wide_one_of_as_many_folders():
    """Each folder is looked at once, and not once for each request."""
    deep = sorted(f"n{number:03}" + "/a" * 119 for number in range(100))
    wide = sorted(f"n{number:05}/a" for number in range(6000))
    assert processor_time_s(deep) < 6 * processor_time_s(wide)
