"""The requests that a page of the catalog needs over a bucket."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.repository.bucket_world import BucketWorld, TimedBucket
from tests.repository.test_catalog import NAMES
from tests.repository.worlds import done, listed, result_of
from tests.support.examples import examples
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import catalog, layout
from twisted_registry.storage.s3.errors import AccessDenied, S3Error, Unsupported

#: Folders in the first requests of a walk, even for a short page.
LEAST = 32

TREES = {
    "one folder": [f"n{number:04}" for number in range(600)],
    "one each": [f"u{number:04}/app" for number in range(600)],
    "one each, before the sign": [f"u{number:04}/0" for number in range(600)],
    "above and below": [f"u{n:04}{app}" for n in range(200) for app in ("", "/0", "/app")],
    "three levels": [f"{a}/{b}/{c}" for a in "abc" for b in "abcdefghij" for c in range(10, 30)],
    "names that sort before a slash": [f"a{'-b' * (n % 3)}/{n:03}" for n in range(300)],
    "all orders": [
        f"n{n:02}{rest}"
        for n in range(60)
        for rest in ("", "-b", "-b/c", ".b", "/0", "/b", "/b-c", "0", "_b")
    ],
}


def link(bucket_world, *names):
    for name in names:
        bucket_world.write(layout.layer_link(name, Digest.of(b"x")), b"x")


@pytest.mark.parametrize("names", TREES.values(), ids=TREES)
def test_page_needs_at_most_one_listing_for_each_name_and_level(names):
    world = BucketWorld()
    link(world, *names)
    names = sorted(names)
    depth = max(name.count("/") + 1 for name in names)
    middle = len(names) // 2
    for after in ("", names[0], names[49], names[middle], f"{names[middle]}!", names[-30]):
        for limit in (1, 10, 100, 599):
            before = world.bucket.count("list_objects")
            found, more = done(world.registry.catalog(after, limit))
            following = [name for name in names if name > after]
            assert (found, more) == (following[:limit], len(following) > limit)
            assert world.bucket.count("list_objects") - before <= len(found) + depth
    assert world.bucket.count("head_object") == 0


def test_folders_are_checked_concurrently():
    world = BucketWorld()
    link(world, *TREES["one each"])
    waiting = []

    def hold(prefix):
        if prefix.endswith("/repositories/"):
            return None
        waiting.append(Deferred())
        return waiting[-1]

    world.bucket.hooks["list_objects"] = hold
    page = Deferred.fromCoroutine(world.registry.catalog("", 100))
    assert len(waiting) == 24
    while waiting:
        waiting.pop(0).callback(None)
    assert result_of(page)[0] == sorted(TREES["one each"])[:100]


@settings(max_examples=examples(100))
@given(NAMES, NAMES, st.integers(1, 4), st.sampled_from([1, 2, 3, 1000]))
@example({"a", "a-b", "a/b", "a.b/c", "a/b-c"}, {"a/c"}, 1, 1)
@example({"a/0", "a/00", "a"}, {"a/b"}, 2, 2)
def test_pages_of_any_length_give_all_names_in_order(names, empty, limit, answer):
    world = BucketWorld()
    link(world, *names)
    world.bucket.page = answer
    for name in empty - names:
        # A folder that has only an upload.
        world.write(layout.upload_started(name, "x"), b"x")
    found, after, more = [], "", True
    while more:
        some, more = done(world.registry.catalog(after, limit))
        assert len(some) == limit or not more
        found += some
        after = some[-1] if some else after
    assert found == sorted(names)
    assert done(listed(catalog.walk_repositories(world.driver))) == sorted(names)


def test_started_uploads_need_one_listing_each():
    world = BucketWorld()
    names = [f"n{number:03}" for number in range(40)]
    link(world, *names)
    for name in names[::2]:
        world.write(layout.upload_started(f"{name}-x", "x"), b"x")
    before = world.bucket.count("list_objects")
    found, more = done(world.registry.catalog("", 30))
    assert (found, more) == (names[:30], True)
    assert world.bucket.count("list_objects") - before == 1 + 30 + 15


def test_folders_that_are_no_repositories_are_not_listed():
    world = BucketWorld()
    link(world, "a", "z")
    for name in ("-b", "Upper", "c/-d", "e..f", f"{'g' * 200}/{'h' * 200}"):
        world.write(f"{layout.repository_folder(name)}/_layers/x", b"x")
    for limit in (1, 2, 3):
        found, more = done(world.registry.catalog("", limit))
        assert found == ["a", "z"][:limit]
        assert not more or len(found) == limit


def world_whose_listings(change):
    """Return a world whose bucket lists with the arguments that ``change`` returns."""

    class Bucket(TimedBucket):
        def _list(self, prefix, delimiter, *others):
            return super()._list(*change(prefix, delimiter), *others)

    class BucketWorldWithListings(BucketWorld):
        make_bucket = Bucket

    return BucketWorldWithListings()


def refused(error):
    def refuse(prefix, delimiter):
        if len(delimiter) > 1:
            raise error
        return prefix, delimiter

    return refuse


@pytest.mark.parametrize(
    "change",
    [
        lambda prefix, delimiter: (prefix, delimiter if len(delimiter) == 1 else ""),
        lambda prefix, delimiter: (prefix, delimiter[:1]),
        refused(Unsupported("ListObjectsV2", "no", code="NotImplemented", status=501)),
        refused(S3Error("ListObjectsV2", "no", code="InvalidArgument", status=400)),
    ],
    ids=["not at all", "by the slash", "not implemented", "no such argument"],
)
def test_store_without_long_delimiters_is_walked_from_then_on(change):
    world = world_whose_listings(change)
    names = TREES["one each"]
    link(world, *names)
    for after, limit in (("", 100), (names[49], 100), (names[-30], 100), ("", 10)):
        before = world.bucket.count("list_objects")
        found, more = done(world.registry.catalog(after, limit))
        following = [name for name in names if name > after]
        assert (found, more) == (following[:limit], len(following) > limit)
        # One listing for each level of each name, and a few more beyond the page.
        most = 2 * (max(limit + 1, LEAST) + 2)
        assert 0 < world.bucket.count("list_objects") - before <= most


def test_first_answer_without_names_is_verified_by_a_walk():
    world = world_whose_listings(
        lambda prefix, delimiter: ("none" if len(delimiter) > 1 else prefix, delimiter)
    )
    link(world, "a", "b")
    assert done(world.registry.catalog("", 10)) == (["a", "b"], False)


def test_failing_store_is_not_taken_for_one_without_long_delimiters():
    world = BucketWorld()
    link(world, "a")
    world.bucket.hooks["list_objects"] = lambda _: AccessDenied("ListObjectsV2", "no", status=403)
    with pytest.raises(RegistryError, match="UNAVAILABLE"):
        done(world.registry.catalog("", 10))
    del world.bucket.hooks["list_objects"]
    before = world.bucket.count("list_objects")
    assert done(world.registry.catalog("", 10)) == (["a"], False)
    assert world.bucket.count("list_objects") - before == 2
