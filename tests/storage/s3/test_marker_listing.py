"""Marker listing of repositories on real stores, and its number of requests."""

from __future__ import annotations

from uuid import uuid4

import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.support.s3_stores import make_driver
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import catalog, layout

NAMES = sorted(
    [
        *("a", "a-b", "a-b/c", "a.b", "a/0", "a/b", "a/b-c", "a0", "a_b"),
        *(f"u{number:02}/{'0' if number % 2 else 'app'}" for number in range(20)),
        *(f"w/{number}/app" for number in range(20)),
    ]
)


@pytest_twisted.async_yield_fixture
async def driver(store):
    driver = make_driver(store, root=uuid4().hex)
    yield driver
    await driver.close()


@pytest_twisted.ensureDeferred
async def test_page_needs_about_one_listing_for_each_name(driver, monkeypatch):
    digest = Digest.of(b"x")
    await gatherResults(
        [
            driver.put(link(name, digest), b"x")
            for name in NAMES
            for link in (layout.layer_link, layout.revision_link)
        ]
    )
    asked = []
    listed = driver.client.list_objects

    def count(prefix, **options):
        asked.append(prefix)
        return listed(prefix, **options)

    monkeypatch.setattr(type(driver.client), "list_objects", lambda _, *a, **b: count(*a, **b))
    for after, limit in (("", 30), ("a", 3), ("a-b/b", 4), ("u03/0", 100), ("", 5)):
        asked.clear()
        following = [name for name in NAMES if name > after]
        found, more = await catalog.list_repositories(driver, after, limit)
        assert (found, more) == (following[:limit], len(following) > limit)
        assert 0 < len(asked) <= len(found) + 3
