"""What a page of the catalog costs over a bucket, where each question is a request."""

from __future__ import annotations

import pytest
from bucketworld import BucketWorld
from domain import done

from twisted_registry.digest import Digest
from twisted_registry.repository import catalog, layout

#: Folders of a level that are asked about together, be the page ever so short.
LEAST = 32


@pytest.mark.parametrize(
    ("names", "depth"),
    [
        ([f"n{number:04}" for number in range(600)], 1),
        ([f"u{number:04}/app" for number in range(600)], 2),
        ([f"{a}/{b}/{c}" for a in "abc" for b in "abcdefghij" for c in range(10, 30)], 3),
        ([f"a{'-b' * (number % 3)}/{number:03}" for number in range(300)], 2),
    ],
    ids=["one folder", "one each", "three levels", "names that sort before a slash"],
)
def test_a_folder_is_listed_once_and_few_are_that_no_name_needs(names, depth):
    world = BucketWorld()
    for name in names:
        world.write(layout.layer_link(name, Digest.of(b"x")), b"x")
    names = sorted(names)
    for after, limit in (("", 100), (names[49], 100), (names[-30], 100), ("", 10)):
        before = world.bucket.count("list_objects")
        found, more = done(catalog.page(world.driver, after, limit))
        following = [name for name in names if name > after]
        assert (found, more) == (following[:limit], len(following) > limit)
        # Each name has as many folders as levels; a few beyond the page are asked about with them.
        most = depth * (max(limit + 1, LEAST) + 2)
        assert 0 < world.bucket.count("list_objects") - before <= most
